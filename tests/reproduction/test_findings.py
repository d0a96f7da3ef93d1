"""From what clusters carry to the figures of a claim and their page."""

import pytest

from emu.reproduction import lab as module
from emu.reproduction.batch_jobs import BatchClaim
from emu.reproduction.finding import ClaimFigure, Finding, written
from emu.reproduction.lab import CALIBRATED, COMPATIBLE, MODES, RULES, Lab, LabEffort, PaperCluster
from emu.reproduction.page import render
from emu.reproduction.same_rate import SameRateClaim
from emu.reproduction.throughput import AS_PUBLISHED, Comparison, ThroughputClaim
from tests.reproduction.test_lab import made_up

AA, A100 = PaperCluster("splitwise_aa"), PaperCluster("baseline_a100")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Splitwise-AA carries 100 requests/s and Baseline-A100 40; with the calibrated timing 30 and 0.5."""

    def observe(overrides, rate_rps):
        limits = (30.0, 0.5) if "timing=profile" in overrides or "splitwise_sim" not in overrides[0] else (100.0, 40.0)
        limit = limits["baseline" in overrides[0]]
        return made_up(rate_rps, rate_rps <= limit, rate_rps <= limit + 10)

    monkeypatch.setattr(module, "observe", observe)
    return Lab(tmp_path, "bloom_176b", LabEffort(step_rps=10.0, from_rps=10.0, until_rps=200.0, tolerance=1e-3))


def test_throughput_is_goodput_over_goodput(lab):
    claim = ThroughputClaim("x", "§1", "says", (Comparison(AA, A100, 2.15, "a note"),), cost=0.0, power=0.0)
    assert {mode for _, mode in claim.capacities()} == set(MODES)
    finding = claim.measure(lab)
    throughput, cost, power = finding.figures
    assert (throughput.values.pop(RULES), throughput.values.pop(CALIBRATED)) == (None, None)
    assert throughput.values == pytest.approx({COMPATIBLE: 2.5, AS_PUBLISHED: 110 / 50}, rel=2e-3)
    assert (throughput.kind, throughput.paper) == ("times", 2.15)
    assert (cost.values[COMPATIBLE], power.values[COMPATIBLE]) == (0.0, 0.0)
    splitwise = "Splitwise-AA (45P25T), conversation, compatible"
    assert f"{splitwise}: 100 requests/s offered; at 100: tbt_p50 2.00x > 1.25x" in finding.why
    assert any(line.startswith("Baseline-A100 (70P/T), conversation, calibrated: none; at 1: tbt_p50") for line in finding.why)
    assert "a note" in finding.why
    assert finding.conclusion.startswith("the timing alone takes the ratio from 2.50× to –, rules and memory from there to –; ")


def test_a_loss_is_negative(lab):
    claim = ThroughputClaim("x", "§1", "says", (Comparison(A100, AA, -0.07),), is_change=True)
    [figure] = claim.measure(lab).figures
    assert figure.kind == "change"
    assert figure.values[COMPATIBLE] == pytest.approx(-0.6, abs=1e-3)


def test_batch_jobs_are_priced_by_one_gpu_a_machine(lab):
    finding = BatchClaim("x", "§1", "says", ((AA, 0.89),)).measure(lab)
    [figure] = finding.figures
    assert figure.values[COMPATIBLE] == pytest.approx(180.0 / (1232.0 / 8))
    assert "0.89 per $ is 137 requests/s completed by the price of one GPU a machine, 1,096 by the machines'" in finding.why[0]


def test_the_least_of_each_design_is_compared(tmp_path, monkeypatch):
    """40 machines of a baseline, or 20 prompt and 5 token machines, carry the rate."""

    def observe(overrides, rate_rps):
        sizes = dict(override.split("=") for override in overrides if override.startswith("cluster.num_"))
        sizes = {name.removeprefix("cluster."): int(number) for name, number in sizes.items()}
        enough = sizes.get("num_machines", 0) >= 40 or (sizes.get("num_prompt", 0) >= 20 and sizes.get("num_token", 0) >= 5)
        return made_up(rate_rps, enough, enough)

    monkeypatch.setattr(module, "observe", observe)
    lab = Lab(tmp_path, "bloom_176b", LabEffort(duration_s=5.0))
    finding = SameRateClaim("x", "§1", "says", "cost", "splitwise_aa", "baseline_h100", -0.25, ("code",)).measure(lab)
    cost, power = finding.figures
    assert (cost.paper, power.paper) == (-0.25, None)
    assert cost.values == pytest.approx(dict.fromkeys((COMPATIBLE, AS_PUBLISHED, CALIBRATED), 25 * 17.6 / (40 * 38) - 1))
    assert power.values == pytest.approx(dict.fromkeys((COMPATIBLE, AS_PUBLISHED, CALIBRATED), 25 / 70 - 1))
    assert finding.conclusion.startswith("coding, compatible: Splitwise-AA 20P5T ($440/h, power 25.0, ")


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "times", "–"),
        (2.149, "times", "2.15×"),
        (-0.07, "change", "−7.0 %"),
        (0.165, "change", "+16.5 %"),
        (0.7, "share", "70 %"),
        (0.8866, "per_dollar", "0.887"),
    ],
)
def test_figures_are_written(value, kind, text):
    assert written(value, kind) == text


def test_the_page_shows_what_there_is_and_nothing_that_is_not():
    figure = ClaimFigure("a <pair>", "times", 1.4, {COMPATIBLE: 1.07, CALIBRATED: None})
    page = render(
        [Finding("one", "§VI", "It & that.", (figure,), "so <it> is", ("because <of> it",))], None, {"model": "bloom_176b"}
    )
    for text in ("1.40×", "1.07×", "–", "a &lt;pair&gt;", "because &lt;of&gt; it", "so &lt;it&gt; is", "It &amp; that."):
        assert text in page
    assert "<svg" not in page
    table = page.split("claim")[-1]
    assert "as published</th>" not in table  # a column of which no figure has a value
