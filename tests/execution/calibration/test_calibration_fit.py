"""The fit and its stated errors, on synthetic measurements of a machine whose costs are known."""

import numpy as np
import pytest

from emu.core.timing.calibrated import CalibratedTiming
from emu.execution.calibration.fit import fit
from emu.execution.calibration.holdout import error_figures, held_out_errors
from emu.execution.calibration.measurements import Round
from emu.execution.calibration.step_shape import StepShape

TRUE = {
    "pass_tokens": [1, 8, 64, 512, 2048],
    "pass_s": [0.012, 0.015, 0.050, 0.350, 1.400],
    "pair_s": 1.5e-7,
    "seq_s": 2e-4,
    "mixed_kv_read_s_per_token": 3e-6,
    "decode_num_seqs": [1, 2, 4, 16],
    "decode_s": [0.010, 0.012, 0.013, 0.020],
    "kv_read_s_per_token": 2e-6,
    "kv_read_growth_s": 5e-10,
    "max_seq_context_tokens": 1000,
}


def shapes() -> list[StepShape]:
    prompts = [((n, 0),) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1536, 2048)]
    prompts += [((n, 0),) * k for n in (8, 64, 256, 512) for k in (2, 4)]
    prompts += [((n, before),) for n in (64, 256) for before in (256, 1024)]
    decodes = [(context,) * n for n in (1, 2, 3, 4, 8, 12, 16) for context in (16, 300, 1000)]
    mixed = [(((n, 0),), (context,) * k) for n in (32, 128, 512) for k in (2, 8) for context in (100, 900)]
    return [StepShape(p) for p in prompts] + [StepShape((), c) for c in decodes] + [StepShape(*both) for both in mixed]


def measured(noise: float, num_rounds: int = 7, seed: int = 0) -> dict[StepShape, list[float]]:
    """The measures of each round: the true time, times log-normal noise."""
    rng, true = np.random.default_rng(seed), CalibratedTiming(**TRUE)
    return {shape: (shape.predict_s(true) * np.exp(noise * rng.standard_normal(num_rounds))).tolist() for shape in shapes()}


def steady(rounds_s: dict[StepShape, list[float]]) -> dict[StepShape, list[Round]]:
    """As measured on a host that does not waver."""
    return {shape: [Round(time_s, time_s) for time_s in times_s] for shape, times_s in rounds_s.items()}


def medians(rounds_s: dict[StepShape, list[float]]) -> dict[StepShape, float]:
    return {shape: float(np.median(times_s)) for shape, times_s in rounds_s.items()}


def test_without_noise_it_finds_what_was_measured():
    figures = fit(medians(measured(noise=0.0)))
    costs = ("pair_s", "seq_s", "mixed_kv_read_s_per_token", "kv_read_s_per_token", "kv_read_growth_s")
    for name in (*costs, "max_seq_context_tokens"):
        assert figures[name] == pytest.approx(TRUE[name], rel=1e-6), name
    timing, true = CalibratedTiming(**figures), CalibratedTiming(**TRUE)
    for prompts in ([3], [300], [1800], [40, 7, 300]):
        assert timing.prefill_s(prompts) == pytest.approx(true.prefill_s(prompts))
    assert timing.decode_s(10, 5000) == pytest.approx(true.decode_s(10, 5000))
    assert timing.mixed_s([200, 30], 5, 1234) == pytest.approx(true.mixed_s([200, 30], 5, 1234))


def test_with_noise_it_predicts_within_the_noise():
    timing, true = CalibratedTiming(**fit(medians(measured(noise=0.03)))), CalibratedTiming(**TRUE)
    for tokens in range(1, 2049, 41):
        assert timing.prefill_s([tokens]) == pytest.approx(true.prefill_s([tokens]), rel=0.06)
    for num_seqs in range(1, 17):
        assert timing.decode_s(num_seqs, 500 * num_seqs) == pytest.approx(true.decode_s(num_seqs, 500 * num_seqs), rel=0.04)


def test_a_batch_that_takes_longer_than_a_larger_one_is_kept():
    times_s = medians(measured(noise=0.0))
    slow_at_3 = {shape: time_s * (1.4 if shape.contexts and shape.num_seqs == 3 else 1.0) for shape, time_s in times_s.items()}
    timing = CalibratedTiming(**fit(slow_at_3))
    assert timing.decode_s(3, 900) > 1.2 * timing.decode_s(4, 900)


def test_a_curve_rises_at_its_end_whatever_was_measured():
    times_s = medians(measured(noise=0.0))
    falling = {s: t * (0.5 if s.num_tokens == 2048 or s.num_seqs == 16 else 1.0) for s, t in times_s.items()}
    figures = fit(falling)
    assert figures["pass_s"][-1] >= figures["pass_s"][-2] and figures["decode_s"][-1] >= figures["decode_s"][-2]
    CalibratedTiming(**figures)


def test_no_noise_makes_a_step_take_nothing():
    for seed in range(20):
        figures = fit(medians(measured(noise=1.0, seed=seed)))
        assert min(figures["pass_s"]) > 0 and min(figures["decode_s"]) > 0
        CalibratedTiming(**figures)


def test_costs_that_noise_would_make_negative_are_none():
    times_s = medians(measured(noise=0.0))
    shrunk = {
        s: t * (0.9 if len(s.prompts) > 1 else 1.0) * (0.8 if s.context_tokens > 4000 else 1.0) for s, t in times_s.items()
    }
    figures = fit(shrunk)
    assert min(figures[n] for n in ("pair_s", "seq_s", "mixed_kv_read_s_per_token", "kv_read_s_per_token")) >= 0.0
    CalibratedTiming(**figures)


def test_the_stated_errors_cover_new_measurements_as_often_as_they_say():
    rounds_s = measured(noise=0.03)
    regions = held_out_errors(steady(rounds_s))
    assert all(region.error == region.steady_error for region in regions)
    assert {region.phase for region in regions} == {"prefill", "decode", "mixed"}
    timing = CalibratedTiming(**fit(medians(rounds_s)), **error_figures(regions))
    new, covered = measured(noise=0.03, num_rounds=40, seed=1), []
    for shape, times_s in new.items():
        error = timing.relative_error([n for n, _ in shape.prompts], len(shape.contexts), shape.context_tokens)
        assert 0.03 < error < 0.15
        covered += [abs(time_s / shape.predict_s(timing) - 1.0) <= error for time_s in times_s]
    assert 0.93 < np.mean(covered) < 0.995


def test_how_the_host_wavers_is_in_the_stated_error_and_not_in_the_steady_one():
    rounds = {
        shape: [Round(factor * time_s, time_s) for factor, time_s in zip((0.8, 1.0, 1.2), [*times_s] * 3, strict=False)]
        for shape, times_s in measured(noise=0.0).items()
    }
    for region in held_out_errors(rounds):
        assert region.error == pytest.approx(0.2, abs=0.05)
        assert region.steady_error < 0.05 and abs(region.bias) < 0.05


def test_a_form_that_does_not_hold_shows_in_the_error():
    """Decodes whose context costs by its third power: no noise, and yet an error."""
    rounds_s = {shape: [time_s[0] * (1 + shape.context_tokens**3 / 1e12)] for shape, time_s in measured(noise=0.0).items()}
    by_phase = {region.phase: region.error for region in held_out_errors(steady(rounds_s))}
    assert by_phase["decode"] > 0.1 > by_phase["prefill"]


def test_regions_with_few_shapes_are_one_with_the_smaller():
    few = {shape: times_s for shape, times_s in measured(noise=0.01).items() if shape.num_seqs in (1, 2, 4, 16)}
    regions = held_out_errors(steady(few))
    assert all(region.num_shapes >= 4 for region in regions)
    assert [region.begin for region in regions if region.phase == "decode"] == [1]


def test_one_size_is_not_enough():
    with pytest.raises(ValueError, match=r"needs two sizes of each kind of pass or more, not \[64\]"):
        fit({StepShape(((64, 0),)): 0.1, StepShape((), (1,)): 0.1, StepShape((), (1, 1)): 0.1})
