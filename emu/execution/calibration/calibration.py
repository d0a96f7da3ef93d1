"""One calibration from end to end: an engine is loaded, its steps are measured, a model fitted and its error stated."""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from emu.execution.calibration.device import device_name, metered, torch_version
from emu.execution.calibration.fit import Figures, fit
from emu.execution.calibration.grid import Bounds, grid
from emu.execution.calibration.holdout import RegionError, error_figures, held_out_errors, steady_times
from emu.execution.calibration.job import MAX_PASS_TOKENS, Job
from emu.execution.calibration.measurements import (
    CalibrationError,
    Measurement,
    MeasurementFile,
    rounds_of,
    slowness,
    typical_probe_s,
)
from emu.execution.calibration.neighbour import neighbours
from emu.execution.calibration.profiler import Profiler
from emu.execution.calibration.step_shape import StepShape
from emu.execution.model import executable_of
from emu.execution.speed_probe import SpeedProbe
from emu.execution.torch_engine.device import max_kv_blocks
from emu.execution.torch_engine.engine import Engine, load_engine

POWER_S = 3.0  # for which the power of each phase is measured


class Calibration(NamedTuple):
    """What was found. `num_kv_blocks` fit the device beside the weights; `overhead_s` is the median of what lies between the
    ends of two steps beyond the second's own time, `idle_s` of what a prefill takes longer on a machine that was idle;
    `slowness` from what to what, in nine tenths of the time, prefills and decodes wavered with the host (1: typical); watts
    are None where no driver tells."""

    figures: Figures
    regions: list[RegionError]
    num_shapes: int
    num_rounds: int
    num_kv_blocks: int
    overhead_s: float
    idle_s: float
    slowness: tuple[tuple[float, float], tuple[float, float]]
    prefill_w: float | None
    decode_w: float | None


def calibrate(job: Job, path: Path, say: Callable[[str], None]) -> Calibration:
    """Measure, fit and state the error. Measurements are kept in `path` until then: what is there already is not taken again.

    `say` is told now and then how far it is. Raises CalibrationError, EngineError.
    """
    executable = executable_of(job.model)
    capacity = max_kv_blocks(executable, job.device, job.block_tokens)
    num_blocks = min(job.max_kv_blocks + SpeedProbe.num_blocks(job.block_tokens), capacity)
    engine = load_engine(
        executable,
        num_blocks=num_blocks or 1,  # with no room for one either, it says what is lacking
        block_tokens=job.block_tokens,
        device=job.device,
        num_threads=job.num_threads,
    )
    return asyncio.run(_calibrate(job, engine, capacity, path, say))


async def _calibrate(job: Job, engine: Engine, capacity: int, path: Path, say: Callable[[str], None]) -> Calibration:
    effort = job.effort
    num_blocks = engine.cache.num_blocks - SpeedProbe.num_blocks(job.block_tokens)
    num_tokens = num_blocks * job.block_tokens
    max_seq_tokens = min(engine.architecture.max_positions, job.max_context, num_tokens)
    max_pass_tokens, max_num_seqs = min(MAX_PASS_TOKENS, num_tokens), min(job.max_num_seqs, num_blocks)
    pads_decodes = not job.is_on_cpu
    bounds = Bounds(max_pass_tokens, max_num_seqs, max_seq_tokens, num_blocks, job.block_tokens, pads_decodes)
    shapes = grid(bounds, effort.is_quick)
    subject = {
        "model": job.model.name,
        "architecture": repr(engine.architecture),
        "dtype": str(engine.dtype),
        "device": device_name(job.device),
        "torch": torch_version(),
        "num_threads": job.num_threads,
        "num_beside": job.num_beside,
        "bounds": asdict(bounds),
        "effort": asdict(effort),
    }
    file = MeasurementFile(path, subject)
    profiler = Profiler(engine, effort)
    try:
        estimates_s = await profiler.estimate_s(shapes, say)
        probe = SpeedProbe(engine)
        with neighbours(job):
            await profiler.measure(estimates_s, probe, file, say)
        watts = [await _power_w(job.device, profiler, estimates_s, phase) for phase in ("prefill", "decode")]
    finally:
        profiler.close()
    if not file.done:
        raise CalibrationError(f"model {job.model.name} on {job.device}: no step takes less than {effort.max_step_s:g} s")
    rounds = rounds_of(file.done)
    try:
        figures = fit(steady_times(rounds))
    except ValueError as error:
        raise CalibrationError(f"model {job.model.name} on {job.device}: {error}") from error
    regions = held_out_errors(rounds)
    probe_prefill_s, probe_decode_s = typical_probe_s(file.done)
    figures |= {"probe_prefill_s": probe_prefill_s, "probe_decode_s": probe_decode_s}
    prefill, decode = np.percentile(slowness(file.done), (5, 95), axis=0).T.tolist()
    overhead_s, idle_s = _costs_of_starting(file.done)
    return Calibration(
        figures=figures | error_figures(regions),
        regions=regions,
        num_shapes=len(rounds),
        num_rounds=effort.num_rounds,
        num_kv_blocks=capacity,
        overhead_s=overhead_s,
        idle_s=idle_s,
        slowness=(prefill, decode),
        prefill_w=watts[0],
        decode_w=watts[1],
    )


def _costs_of_starting(measurements: list[Measurement]) -> tuple[float, float]:
    """The overhead between two steps, and what a step takes longer on a machine that was idle; medians."""
    overheads = [s - own for m in measurements for s, own in zip(m.steps_s, m.own_s, strict=True)]
    idle = [s - other for m in measurements for s, other in zip(m.idle_steps_s, m.steps_s, strict=False)]
    return median(overheads), median(idle)


async def _power_w(device: str, profiler: Profiler, estimates_s: dict[StepShape, float], phase: str) -> float | None:
    """What the device draws in the longest steps of a phase."""
    if device == "cpu":
        return None
    step_s, shape = max((step_s, shape) for shape, step_s in estimates_s.items() if shape.phase == phase)
    with metered(device) as samples:
        await profiler.steps(shape, max(1, round(POWER_S / step_s)))
    return sum(samples) / len(samples) if samples else None
