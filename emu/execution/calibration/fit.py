"""The figures of a `CalibratedTiming` from the measured times of steps."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from emu.execution.calibration.least_squares import non_negative_least_squares
from emu.execution.calibration.step_shape import StepShape

MIN_RATIO = 1.15  # of two neighbouring points of `pass_tokens`: closer ones would each follow the noise of one configuration
MIN_SHARE = 0.1  # of the shortest time, which every point of a curve has at least: no noise makes a step take nothing
Figures = dict[str, Any]  # a number or a list of them each, as `CalibratedTiming` takes and checks them


def fit(times_s: Mapping[StepShape, float]) -> Figures:
    """The figures of `CalibratedTiming` less its errors, by the time of each shape.

    Least squares of the relative errors, with costs that are not negative. A curve has its points at the measured sizes, and
    rises at its end. Raises ValueError where there are fewer than two sizes of passes with prompts or of decodes.
    """
    with_prompts = {shape: time_s for shape, time_s in times_s.items() if shape.prompts}
    decodes = {shape: time_s for shape, time_s in times_s.items() if not shape.prompts}
    tokens = _spread(_distinct(shape.num_tokens for shape in with_prompts))
    costs = [[shape.num_pairs, shape.num_seqs, shape.context_tokens] for shape in with_prompts]
    pass_s, (pair_s, seq_s, mixed_kv_read_s) = _solve(
        tokens, [shape.num_tokens for shape in with_prompts], costs, list(with_prompts.values())
    )
    num_seqs = _distinct(shape.num_seqs for shape in decodes)
    contexts = [[shape.context_tokens, shape.context_tokens**2 / shape.num_seqs] for shape in decodes]
    decode_s, (kv_read_s, kv_read_growth_s) = _solve(
        num_seqs, [shape.num_seqs for shape in decodes], contexts, list(decodes.values())
    )
    return {
        "pass_tokens": tokens,
        "pass_s": pass_s,
        "pair_s": pair_s,
        "seq_s": seq_s,
        "mixed_kv_read_s_per_token": mixed_kv_read_s,
        "decode_num_seqs": num_seqs,
        "decode_s": decode_s,
        "kv_read_s_per_token": kv_read_s,
        "kv_read_growth_s": kv_read_growth_s,
        "max_seq_context_tokens": max(shape.context_tokens // shape.num_seqs for shape in decodes),
    }


def _distinct(sizes: Iterable[int]) -> list[int]:
    distinct = sorted(set(sizes))
    if len(distinct) < 2:
        raise ValueError(f"a calibration needs two sizes of each kind of pass or more, not {distinct}")
    return distinct


def _spread(sizes: list[int]) -> list[int]:
    """Fewer of them where they are close; the smallest and the largest stay."""
    spread = sizes[:1]
    for size in sizes[1:-1]:
        if size >= MIN_RATIO * spread[-1] and sizes[-1] >= MIN_RATIO * size:
            spread.append(size)
    return [*spread, sizes[-1]]


def _solve(
    knots: list[int], sizes: Sequence[int], costs: Sequence[Sequence[float]], times_s: Sequence[float]
) -> tuple[list[float], list[float]]:
    """The curve's values at `knots`, and the price of each column of `costs` (rows, columns)."""
    x, sizes_ = np.array(knots, dtype=float), np.array(sizes, dtype=float)
    # Of a point's value each size between it and its neighbours has a share; the last value is the one before and a rise that
    # is not negative.
    shares = np.column_stack([np.interp(sizes_, x, point) for point in np.eye(len(x))])
    shares[:, -2] += shares[:, -1]
    matrix = np.column_stack([shares, np.array(costs, dtype=float)])
    weights = 1.0 / np.array(times_s)
    floor_s = MIN_SHARE * min(times_s)
    solution = non_negative_least_squares(matrix * weights[:, None], 1.0 - floor_s * weights)
    curve, prices = solution[: len(knots)], solution[len(knots) :]
    curve[-1] += curve[-2]
    return (floor_s + curve).tolist(), prices.tolist()
