"""What a run's results are made of and leave out, as configured."""

from dataclasses import dataclass

from emu.core import setting


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Requests that arrive in the first `warmup_s` seconds count in no metric; those unfinished `max_drain_s` seconds after the
    last arrival fail. Raises SettingError."""

    warmup_s: float
    max_drain_s: float

    def __post_init__(self) -> None:
        setting.not_negative("metrics.warmup_s", self.warmup_s)
        setting.not_negative("metrics.max_drain_s", self.max_drain_s)


@dataclass(frozen=True, slots=True)
class ResultsSettings:
    """Which files a run leaves beside requests.parquet and summary.json: the event log if `events` (`auto` leaves it to the
    runtime, and is off in sweeps), report.html if `report`. Raises SettingError."""

    events: bool | str
    report: bool

    def __post_init__(self) -> None:
        if self.events not in (True, False, "auto"):
            raise setting.SettingError(f"results.events={self.events}: expected auto, true or false")
