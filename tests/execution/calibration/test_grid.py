from dataclasses import replace

import pytest

from emu.core.timing.calibrated import CalibratedTiming
from emu.execution.calibration.fit import fit
from emu.execution.calibration.grid import Bounds, grid
from emu.execution.calibration.step_shape import StepShape

WIDE = Bounds(max_pass_tokens=2048, max_num_seqs=32, max_seq_tokens=2048, num_blocks=4096, block_tokens=16, pads_decodes=False)


def test_a_shape_counts_its_tokens_pairs_and_blocks():
    shape = StepShape(((3, 0), (2, 10)), (5, 33))
    assert (shape.phase, shape.num_tokens, shape.num_seqs, shape.context_tokens) == ("mixed", 7, 4, 38)
    assert shape.num_pairs == (1 + 2 + 3) + (11 + 12)
    assert shape.num_blocks(16) == 1 + 1 + 1 + 3
    assert StepShape(((3, 0),)).phase == "prefill" and StepShape((), (1,)).phase == "decode"


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(
    "bounds",
    [WIDE, Bounds(500, 5, 300, 40, 16, False), Bounds(64, 1, 64, 4, 16, False), Bounds(8192, 256, 32768, 3000, 16, True)],
    ids=str,
)
def test_shapes_stay_within_what_the_engine_has_and_reach_its_ends(bounds, quick):
    shapes = grid(bounds, quick)
    assert len(set(shapes)) == len(shapes)
    assert all(bounds.allow(shape) for shape in shapes)
    longest = min(bounds.max_pass_tokens, bounds.max_seq_tokens)
    assert {1, longest} <= {shape.num_tokens for shape in shapes if shape.phase == "prefill"}
    assert {1, bounds.max_num_seqs} <= {shape.num_seqs for shape in shapes if shape.phase == "decode"}


def test_an_engine_that_pads_is_measured_where_it_pads_least_and_most():
    batches = {shape.num_seqs for shape in grid(replace(WIDE, pads_decodes=True), quick=False) if shape.phase == "decode"}
    assert batches == {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 32}


def test_every_kind_of_step_is_there():
    for shapes in (grid(WIDE, quick=False), grid(WIDE, quick=True)):
        prefills = [shape for shape in shapes if shape.phase == "prefill"]
        assert any(len(shape.prompts) > 1 for shape in prefills)
        assert any(before for shape in prefills for _, before in shape.prompts)
        assert any(len(set(shape.contexts)) > 1 for shape in shapes)
        assert any(shape.phase == "mixed" for shape in shapes)
    assert len(grid(WIDE, quick=True)) < len(grid(WIDE, quick=False)) / 2


@pytest.mark.parametrize("quick", [False, True])
def test_the_grid_tells_all_costs_apart(quick):
    """A machine with every cost: the fit to exact times of these shapes predicts others exactly."""
    true = CalibratedTiming(
        pass_tokens=[1, 4000], pass_s=[0.01, 4.0], pair_s=1e-7, seq_s=1e-3, mixed_kv_read_s_per_token=3e-6,
        decode_num_seqs=[1, 100], decode_s=[0.01, 0.1], kv_read_s_per_token=2e-6, kv_read_growth_s=1e-10,
        max_seq_context_tokens=9999,
    )  # fmt: skip
    timing = CalibratedTiming(**fit({shape: shape.predict_s(true) for shape in grid(WIDE, quick)}))
    for shape in (StepShape(((77, 0), (5, 0))), StepShape(((70, 900),), (44, 300)), StepShape((), (1500, 3, 99, 8, 1000))):
        assert shape.predict_s(timing) == pytest.approx(shape.predict_s(true), rel=1e-6)
