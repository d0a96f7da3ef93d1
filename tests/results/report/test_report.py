import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from math import inf

import numpy as np
import pytest

from emu.core.batching.fcfs import Fcfs
from emu.core.cluster import Cluster
from emu.core.facts import PayloadMoved
from emu.core.machine_kind import MachineSpec
from emu.core.paged_machines import PagedMachines
from emu.core.placement.token_jsq import TokenJsq
from emu.core.pools import Role
from emu.core.repurposing import NEVER
from emu.core.specs import HardwareSpec, ModelSpec
from emu.core.timing.constant import ConstantTiming
from emu.results.power import RatedPower
from emu.results.recorder import Recorder
from emu.results.report import write_report
from emu.results.report.origin import bottleneck_text
from emu.results.run_record import Fidelity, KVStats, RunRecord
from emu.results.slo import ServiceLevels, SloSettings
from emu.results.summary import summarize
from emu.results.verdict import VerdictLimits
from emu.runtime.fault import Fault
from emu.runtime.virtual import VirtualRuntime
from emu.workload.workload import Workload

MODEL = ModelSpec("tiny", num_params=1, num_layers=1, hidden_size=64, num_heads=1, num_kv_heads=1, head_dim=64)
HARDWARE = HardwareSpec("box", 1, 2**30, 1e9, 0.9, 0, 1e9, 50e-6, 100.0, 1.0, 1.0)
TIMING = ConstantTiming(prefill_s_per_token=0.0001, decode_step_s=0.03)
LIMITS = VerdictLimits(
    late_p99_s=0.005,
    late_max_s=0.25,
    foreign_cores=0.5,
    extrapolated_share=0.05,
    clock_error_s=0.001,
    degraded_factor=4.0,
    late_s=0.005,
    overrun_p99_s=0.05,
    saturated_s=2.0,
    failed_share=0.01,
)
SLO = SloSettings(HARDWARE, "mean", 2, 3, 6, 1.25, 1.5, 5, 1.25, 1.5, 5)
SECTIONS = (
    "What was run",
    "Service levels and cost",
    "Service level objectives",
    "Cost and energy",
    "Latency",
    "TTFT",
    "TBT",
    "E2E",
    "Requests arrived and finished",
    "Token throughput",
    "Requests by phase",
    "Queue lengths",
    "Decode batch size",
    "Prompt tokens a step",
    "Active tokens in a step",
    "Time by active tokens",
    "Machines by pool",
    "Busy machines",
    "Machines",
    "KV cache hand-over",
    "Events of note",
)


def workload(num_requests=60, output_tokens=40, rate_rps=20.0):
    arrival_s = np.arange(num_requests) / rate_rps
    tokens = np.full(num_requests, 200), np.full(num_requests, output_tokens)
    return Workload("test", arrival_s, *(column.astype(np.int64) for column in tokens))


def record(roles, requests, faults=(), payloads=(), **changes):
    """The record of a virtual run on one machine of each of `roles`, named m0, m1, ..., as if these `payloads` had moved."""
    machines = tuple(MachineSpec(i, f"m{i}", Role(role), HARDWARE, 2000, TIMING) for i, role in enumerate(roles))
    cluster = Cluster(MODEL, machines, PagedMachines(16, 0.01, 0.3), TokenJsq(), Fcfs(2048, 4), NEVER, 0.005, 0.0, inf, True)
    recorder = Recorder(requests, len(machines))
    ended = VirtualRuntime(cluster, requests, recorder, 100.0, [Fault(*fault) for fault in faults]).run()
    for payload in payloads:
        recorder.record(payload.verified_s, payload)
    facts = {
        "runtime": "virtual",
        "seed": 7,
        "cluster": cluster,
        "recorder": recorder,
        "emulated_s": ended.emulated_s,
        "num_events": ended.num_events,
        "kv": KVStats(),
        "fidelity": None,
        "interrupted": "",
        "wall_start": 0.0,
    }
    return RunRecord(**facts | changes)


def summary_of(run, slo=SLO):
    return summarize(run, 0.0, LIMITS, ServiceLevels.of(slo, TIMING, MODEL), RatedPower(1000.0))


@pytest.fixture
def report(tmp_path):
    """A function that writes the report of a record and returns its text; `summary` changes are laid over the real one."""

    def write(run, summary=None, **options):
        path = tmp_path / "report.html"
        columns = run.recorder.columns()
        write_report(path, run, columns, summary_of(run) | (summary or {}), **options)
        return path.read_text(encoding="utf-8")

    return write


class Outline(HTMLParser):
    """Headings, and text outside of style and script; fails on a tag that is closed in the wrong place."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, page):
        super().__init__()
        self.open, self.headings, self.text = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data)
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def plots(page):
    """The charts of a page by title, each parsed as XML."""
    figures = re.findall(r"<figure.*?</figure>", page)
    svgs = (re.search(r'<svg class="plot".*?</svg>', figure) for figure in figures)
    trees = [ElementTree.fromstring(svg.group()) for svg in svgs if svg]
    return {tree.get("aria-label"): tree for tree in trees}


def numbers(path):
    return [float(number) for number in re.findall(r"-?[\d.]+|nan|inf", path)]


def assert_drawn_inside(page):
    """Every mark of every chart lies within its drawing, and no number of it is missing."""
    for title, tree in plots(page).items():
        _, _, width, height = map(float, tree.get("viewBox").split())
        for path in tree.iter("path"):
            if path.get("data-name"):
                points = numbers(path.get("d"))
                assert np.isfinite(points).all(), title
                assert min(points, default=0.0) >= 0.0, title
                assert max(points[::2], default=0.0) <= width and max(points[1::2], default=0.0) <= height, title


def test_every_section_is_there_and_the_page_is_well_formed(report):
    page = report(record(["prefill", "prefill", "decode"], workload()))
    outline = Outline(page)
    assert [title for title in SECTIONS if title not in outline.headings] == []
    assert "Lateness of the emulator" not in outline.headings
    assert len(plots(page)) == 16
    assert_drawn_inside(page)


def test_the_verdict_comes_first_with_each_reason(report):
    run = record(["prefill", "decode"], workload(5))
    changed = {"verdict": "DEGRADED", "verdict_reasons": ["first <reason>", "second reason"], "saturated": True}
    page = report(run, changed)
    assert Outline(page).headings[0] == "DEGRADED"
    assert '<section class="verdict warn">' in page
    assert ">SATURATED<" in page and ">INTERRUPTED<" not in page
    assert "<li>first &lt;reason&gt;</li><li>second reason</li>" in page
    assert page.index("second reason") < page.index("What was run")
    assert '<section class="verdict good">' in report(run, {"verdict": "VALID"})


def test_the_headline_table_shows_the_summarys_numbers(report):
    run = record(["prefill", "decode"], workload(4, output_tokens=5, rate_rps=1.0))
    summary = {"e2e_s": {"mean": 12.5, "p50": 11.0, "p90": 20.0, "p99": 1234.0, "max": float("inf")}}
    text = Outline(report(run, summary)).text
    row = text[text.index("arrival to last token") + 1 :][:6]
    assert row == ["12.50", "11.00", "20.00", "1,234", "∞", "s"]
    ttft = text[text.index("arrival to first token") + 1 :][:6]
    assert ttft == ["25.00", "25.00", "25.00", "25.00", "25.00", "ms"]  # control latency and 200 tokens of 0.1 ms


def test_every_text_from_outside_is_escaped(report):
    evil = "<script>alert('x')</script>&"
    run = record(["prefill", "decode"], workload(5), interrupted=evil)
    run = replace(run, cluster=replace(run.cluster, model=replace(MODEL, name=evil)))
    page = report(run, {"verdict_reasons": [evil]}, title=evil, settings={evil: evil}, overrides=[evil])
    outline = Outline(page)
    assert page.count("<script>") == 1 and "alert('x')" not in page
    assert "".join(outline.text).count(evil) == 8


def test_the_same_run_gives_the_same_bytes(report, tmp_path):
    run = record(["prefill", "decode"], workload())
    summary = summary_of(run)
    pages = [report(run, summary, settings={"cluster": "two"}, overrides=["seed=7"]) for _ in range(2)]
    assert pages[0] == pages[1]


def test_the_page_needs_nothing_but_itself(report):
    page = report(record(["prefill", "decode"], workload()))
    assert re.findall(r'href="([^"]*)"', page) == ["summary.json", "requests.parquet"]  # beside it
    assert not re.search(r"src=|url\(|@import|https?://(?!www\.w3\.org)", page)


def test_many_requests_do_not_make_a_large_page(report):
    roles = ["prefill"] * 12 + ["decode"] * 24
    page = report(record(roles, workload(3000, output_tokens=100, rate_rps=150.0)))
    assert len(page.encode()) < 400_000
    assert_drawn_inside(page)


def test_one_request_of_one_token(report):
    page = report(record(["prefill", "decode"], workload(1, output_tokens=1)))
    text = "".join(Outline(page).text)
    assert "Nothing to show: no request got this far." in text  # there is no gap between tokens
    assert "No KV cache was handed over" in text
    assert_drawn_inside(page)


def test_nothing_finished(report):
    page = report(record(["prefill", "decode"], workload(10), faults=[(0, 0.001), (1, 0.002)], interrupted="Ctrl-C"))
    outline = Outline(page)
    text = "".join(outline.text)
    assert text.count("Nothing to show: no request got this far.") == 3
    assert "No machine ran a decode step." in text and "No machine ran a prefill step." in text
    assert ">INTERRUPTED<" in page and "The run was interrupted (Ctrl-C)" in text
    assert_drawn_inside(page)


def test_a_colocated_cluster_has_no_hand_overs(report):
    page = report(record(["mixed", "mixed"], workload()))
    assert "No KV cache was handed over" in page
    assert "From first to second token" not in Outline(page).headings
    assert "mixed machines" in page and "decode machines" not in page


def test_an_interrupted_run_shows_no_request_that_had_not_arrived(report):
    full = record(["prefill", "decode"], workload(60))
    cut = RunRecord(**{field: getattr(full, field) for field in RunRecord.__dataclass_fields__} | {"emulated_s": 1.0})
    arrived = plots(report(cut))["Requests arrived and finished"].find("path[@data-name='arrived']").get("d")
    heights = numbers(arrived)[1::2]
    assert len(set(heights)) <= 2  # one each 50 ms, in bins of 20 ms: the late ones are not heaped into the last bin


def test_a_death_is_told(report):
    run = record(["prefill", "decode", "decode"], workload(), faults=[(1, 1.5)])
    text = Outline(report(run)).text
    assert "m1 (died at 1.50 s)" in text
    assert "machine died" in text and "m1 (decode, box)" in text
    assert "request restarted" in text
    dead = plots(report(run))["Machines by pool"].find("path[@data-name='dead']")
    assert dead is not None


def test_lateness_is_told_where_time_is_real(report):
    late_s = np.concatenate([np.zeros(90), np.full(10, 0.002)])
    fidelity = Fidelity(late_s, np.empty(0), foreign_cores=0.25, clock_error_s=0.0001, dilation=2.0)
    kv = KVStats(0.5, 12_000_000, 59, 2, {"corrupt": 1}, 1e9)
    page = report(record(["prefill", "decode"], workload(), runtime="ray", fidelity=fidelity, kv=kv))
    outline = Outline(page)
    assert "Lateness of the emulator" in outline.headings
    assert "messages: p50 0.00 ms, p99 2.00 ms" in outline.text
    assert "12.0 MB really moved: 59 verified, 1 corrupt, 2 overran." in outline.text
    assert_drawn_inside(page)


def stacked_bars(page):
    """The bars of the gap between first and second token: name to {span: its number}."""
    box = page[page.index('<dl class="stacks">') :]
    box = box[: box.index("</dl>")]
    bars = re.findall(r"<dt>(.*?)<small>.*?</dt><dd>(.*?)<b>(.*?)</b></dd>", box)
    return {name: dict(re.findall(r'title="(\w+) ([\d.]+) ms"', bar)) | {"gap": gap} for name, bar, gap in bars}


def test_the_gap_of_a_hand_over_is_told_span_by_span(report):
    # One request at a time: 200 tokens of 256 B at 1 GB/s take 0.05 ms after 0.05 ms.
    page = report(record(["prefill", "decode"], workload(4, output_tokens=5, rate_rps=1.0)))
    spans = {"hold": "5.00", "queue": "5.00", "wire": "0.10", "step": "30.00", "gap": "40.10"}
    assert stacked_bars(page) == {"serialized": spans, "slowest 1 %": spans}
    assert "Time on the wire" not in plots(page)


def test_real_wire_time_stands_beside_the_models(report):
    roles, requests = ["prefill", "decode"], workload(4, output_tokens=5, rate_rps=1.0)
    transfers = record(roles, requests).recorder.columns().transfers
    payloads = [
        PayloadMoved(number, 1, 100, 1, at_s - 0.005, at_s - 0.004, at_s - 0.002, at_s, 0.003, 0.001)
        for number, at_s in zip(transfers.request_id.tolist(), transfers.received_s.tolist(), strict=True)
    ]
    page = report(record(roles, requests, payloads=payloads, kv=KVStats(0.5, 400, 4, 0)))
    spans = {"hold": "5.00", "queue": "1.00", "wire": "0.10", "host": "4.00", "step": "30.00", "gap": "40.10"}
    assert stacked_bars(page)["serialized"] == spans
    assert {
        f"{name}: p50 {at} ms, p99 of 4 values {at} ms" for name, at in (("really", "3.00"), ("by the model", "0.10"))
    } <= set(Outline(page).text)
    assert "50 % of its KV cache" in page
    assert_drawn_inside(page)


@pytest.mark.parametrize(("num_machines", "num_rows", "folded"), [(12, 12, 0), (13, 14, 1), (61, 1, 0)])
def test_many_machines_are_told_together(report, num_machines, num_rows, folded):
    page = report(record(["mixed"] * num_machines, workload(20, output_tokens=5)))
    table = page[page.index("<h3>Machines</h3>") :]
    table = table[: table.index("</section>")]
    assert table.count("<tr>") - table.count("<thead>") == num_rows
    assert table.count("<details>") == folded


def test_the_warm_up_is_left_out_of_the_distributions(report):
    run = record(["prefill", "decode"], workload(20))
    assert "Finished requests: 20." in report(run)
    assert "Finished requests that arrived after the first 0.50 s: 10." in report(run, warmup_s=0.5)


def test_the_top_says_where_the_figures_come_from(report):
    evil = "<script>\x07alert('x')</script>"
    run = record(["prefill", "decode"], workload())
    load = {"path": evil, "start_s": 10.0, "duration_s": 60.0, "requests": 162, "requests_in_file": 12031}
    load |= {"file_span_s": 3537.0, "unused_columns": [evil]}
    timing = {"name": evil, "source": "paper", "date": "2024", "error": "3 %", "steps": 1, "extrapolated_steps": 0}
    failures = [{"cause": evil, "count": 3, "first_request": 17}]
    faults = [{"machine": evil, "at_s": 99.0, "why": "after the last event"}]
    changed = {"workload": load, "timing": timing, "failures": failures, "faults_without_effect": faults}
    page = report(run, changed | {"verdict": "ILLUSTRATIVE"}, command=f"emu seed=7 {evil}")
    text = "".join(Outline(page).text)
    assert page.count("<script>") == 1 and "<script>\x07" not in page
    shown = evil.replace("\x07", "\ufffd")
    assert f"emu seed=7 {shown}" in text and f"{shown}; source: paper; date: 2024; error: 3 %" in text
    assert f"{shown}: 162 of 12,031 requests, 10.00 to 70.00 s of 3,537 s; columns not used: {shown}" in text
    assert "Failed requests" in text and f"{shown}317" in text and "after the last event" in text
    assert "ILLUSTRATIVE" in text


def test_a_death_is_marked_in_every_chart_over_time(report):
    page = report(record(["prefill", "decode", "decode"], workload(), faults=[(1, 1.5)]))
    figures = [figure for figure in re.findall(r"<figure.*?</figure>", page) if "time since the run" in figure]
    assert len(figures) == 12
    assert all("m1 died" in figure and 'class="vertical red"' in figure for figure in figures)


def test_limits_stand_in_the_distributions_of_slowdowns(report):
    run = record(["prefill", "decode"], workload())
    charts = plots(report(run, reference=TIMING))
    assert {"TTFT slowdown", "TBT slowdown", "E2E slowdown"} <= set(charts)
    page = report(run, reference=TIMING)
    assert all(f"{name} limit {limit}" in page for name, limit in (("p50", "2"), ("p90", "3"), ("p99", "6")))


@pytest.mark.parametrize(
    ("roles", "text"),
    [
        ({}, ""),
        (
            {"prefill": [0.023, 0.23], "decode": [0.999]},
            "The token machines limit the cluster: token machines 100 % busy; prompt machines 2.3 % to 23 % busy.",
        ),
        ({"mixed": [0.1, 0.1]}, "No role is at its limit: mixed machines 10 % busy."),
        ({"prefill": [0.99, 0.1]}, "Some prompt machines are at their limit, not all: prompt machines 10 % to 99 % busy."),
    ],
)
def test_one_sentence_says_what_limits_the_cluster(roles, text):
    assert bottleneck_text(roles) == text
