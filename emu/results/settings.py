"""What a run's results are made of and leave out, as configured."""

from dataclasses import dataclass

from emu.core import setting


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Requests that arrive in the first `warmup_s` seconds count in no latency and no objective; throughput, cost and the like
    are of the whole run. Those unfinished `max_drain_s` seconds after the last arrival fail. Raises SettingError."""

    warmup_s: float
    max_drain_s: float

    def __post_init__(self) -> None:
        setting.seconds_or_zero("metrics.warmup_s", self.warmup_s)
        setting.seconds_or_zero("metrics.max_drain_s", self.max_drain_s)


@dataclass(frozen=True, slots=True)
class ResultsSettings:
    """Which files a run leaves beside requests.parquet and summary.json: the event log if `events`, report.html if `report`.

    `auto`: a run of a sweep leaves neither; another leaves a report, and an event log where the runtime says so. Raises
    SettingError.
    """

    events: bool | str
    report: bool | str

    def __post_init__(self) -> None:
        for name in ("events", "report"):
            value = getattr(self, name)
            if value not in (True, False, "auto"):
                raise setting.SettingError(f"results.{name}={value}: expected auto, true or false")

    def settled(self, runtime_logs_events: bool, in_sweep: bool) -> "ResultsSettings":
        """The same with true or false in place of `auto`."""
        events = runtime_logs_events and not in_sweep if self.events == "auto" else self.events
        return ResultsSettings(events, not in_sweep if self.report == "auto" else self.report)
