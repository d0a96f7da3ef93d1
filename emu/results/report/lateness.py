"""How well the host kept up with emulated time. Nothing to say where time is emulated too."""

from emu.results.report import card
from emu.results.report.cumulative import comparison_chart
from emu.results.report.curve import Curve
from emu.results.report.quantity import NONE, count, duration
from emu.results.report.run import ReportedRun
from emu.results.run_record import Fidelity

FLOOR_S = 1e-5


def lateness_section(run: ReportedRun) -> str:
    fidelity = run.record.fidelity
    if fidelity is None:
        return ""
    messages, wakeups = Curve.of(fidelity.message_late_s), Curve.of(fidelity.wakeup_late_s)
    chart = comparison_chart(
        "Lateness",
        f"After the due time; {duration(FLOOR_S)} and less is drawn as one.",
        [("messages", "blue", messages), ("wake-ups", "orange", wakeups)],
        FLOOR_S,
    )
    return card.section("Lateness of the emulator", card.charts(chart, _table(messages, wakeups), _host(fidelity)))


def _table(messages: Curve, wakeups: Curve) -> str:
    rows = [["number", count(len(messages)), count(len(wakeups))]]
    for name, q in (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)):
        rows.append([name, *(duration(late.percentile(q)) if len(late) else NONE for late in (messages, wakeups))])
    return card.box("Lateness in numbers", "", card.table(["", "messages", "wake-ups"], rows))


def _host(fidelity: Fidelity) -> str:
    facts = {
        "cores used by others": f"{fidelity.foreign_cores:.2f}",
        "clock error between nodes": duration(fidelity.clock_error_s),
        "dilation": f"{fidelity.dilation:g} wall s per emulated s",
    }
    return card.box("Host", "", card.facts(facts))
