"""A calibration as a file of `conf/timing/`: the fit, and in comments what it is of and how far to trust it."""

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from emu.core.timing.probe import PHASES
from emu.execution.calibration.calibration import Calibration, calibrate
from emu.execution.calibration.device import device_name, torch_version
from emu.execution.calibration.holdout import RegionError
from emu.execution.calibration.job import Job
from emu.execution.calibration.neighbour import BUSY_SHARE
from emu.execution.model import executable_of
from emu.files import write_text

SIZES = {"prefill": "tokens", "decode": "sequences", "mixed": "tokens"}


def write_timing(job: Job, target: Path, measurements: Path, command: str, say: Callable[[str], None]) -> Calibration:
    """Calibrate, and write the file `target`. The measurements are in the end in `measurements`, and until then in a file
    beside it from which the same call goes on. Raises CalibrationError, EngineError.
    """
    unfinished = measurements.with_suffix(".unfinished.jsonl")
    calibration = calibrate(job, unfinished, say)
    write_text(timing_yaml(target.stem, job, calibration, command), target)
    unfinished.replace(measurements)
    return calibration


def timing_yaml(name: str, job: Job, calibration: Calibration, command: str) -> str:
    """The file's text, for timing=NAME. `command` is what wrote it."""
    date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    lines = [f"# {line}".rstrip() for line in _header(job, calibration, command, date)]
    lines += ["_target_: emu.core.timing.calibrated.CalibratedFamily", "_convert_: all"]
    provenance = {"name": name, "source": _source(job), "date": date, "error": stated_error(calibration.regions)}
    # JSON's text in quotes is YAML's too.
    lines += [f"{key}: {json.dumps(text, ensure_ascii=False)}" for key, text in provenance.items()]
    lines += ["tensor_parallel: 1"]
    lines += [f"{phase}_speed: 1  # of the machines, against that in the calibration, > 0" for phase in PHASES]
    lines += ["fits:"]
    lines += [f"  {job.model.name}:", f"    {job.hardware}:"]
    lines += [f"      {name}: {_text(value)}" for name, value in calibration.figures.items()]
    return "\n".join(lines) + "\n"


def _source(job: Job) -> str:
    return f"emu calibrate on {_device(job)}"


def _device(job: Job) -> str:
    threads = f", {job.num_threads} thread{'s' * (job.num_threads > 1)}" if job.is_on_cpu else ""
    return f"{device_name(job.device)} (device {job.device}{threads})"


def stated_error(regions: Sequence[RegionError]) -> str | None:
    """The errors from the least to the largest of each phase's regions; None where nothing was held out."""
    ranges = []
    for phase in SIZES:
        errors = [100 * region.error for region in regions if region.phase == phase]
        if errors:
            ranges.append(f"{phase} {min(errors):.0f} to {max(errors):.0f} %")
    return f"{', '.join(ranges)}: 95th percentile, each configuration held out in turn" if ranges else None


def error_table(regions: list[RegionError]) -> list[str]:
    """A line a region, below a heading."""
    lines = [f"{'':8} {'from':>14} {'error':>7} {'steady':>7} {'bias':>7} {'configurations':>15}"]
    for region in regions:
        begin = f"{region.begin} {SIZES[region.phase]}"
        errors = f"{region.error:7.1%} {region.steady_error:7.1%} {region.bias:+7.1%}"
        lines.append(f"{region.phase:8} {begin:>14} {errors} {region.num_shapes:15}")
    return lines


def costs(job: Job, calibration: Calibration) -> list[str]:
    """What was measured beside the times of steps."""
    lines = [
        f"between two steps: {1e3 * calibration.overhead_s:.3f} ms beyond the step's own time, which is in all times here",
        f"after idling: a prefill takes {1e3 * calibration.idle_s:+.3f} ms, as two of three that were measured",
        f"KV capacity: {calibration.num_kv_blocks:,} blocks of {job.block_tokens} tokens fit the device beside the weights",
    ]
    prefill, decode = (f"{low:.2f} to {high:.2f} x" for low, high in calibration.slowness)
    lines.append(f"the host: in nine tenths of the time prefills took {prefill} as long as typically, decodes {decode}")
    if calibration.prefill_w is None or calibration.decode_w is None:
        return [*lines, "power: not measured, no driver tells of it"]
    return [*lines, f"power: {calibration.prefill_w:.0f} W in prefills, {calibration.decode_w:.0f} W in decodes"]


def _header(job: Job, calibration: Calibration, command: str, date: str) -> Iterator[str]:
    figures, dtype = calibration.figures, executable_of(job.model).dtype
    yield f"Times of one forward pass of {job.model.name} ({dtype}) on hardware {job.hardware}. Calibrated on"
    yield f"{_device(job)}, {date}, with"
    if job.num_beside:
        yield f"{job.num_beside} other of these machines at work on the same host, busy for {BUSY_SHARE:.0%} of the time, and"
    yield f"torch {torch_version()}, numpy {np.__version__}, Python {platform.python_version()}, by"
    yield f"  {command}"
    yield ""
    yield f"Measured are {calibration.num_shapes} configurations in {calibration.num_rounds} rounds. The measure of a round is"
    yield "the mean of a few steps, each from the end of the one before to its own end. Before each, the host's speed was"
    yield "probed by steps that never change; fitted are means over the rounds, each at the typical speed. The fit holds for"
    yield f"  passes with prompts of {figures['pass_tokens'][0]} to {figures['pass_tokens'][-1]} tokens, decodes counted,"
    yield f"  steps of {figures['decode_num_seqs'][0]} to {figures['decode_num_seqs'][-1]} decodes, and"
    yield f"  a mean context of up to {figures['max_seq_context_tokens']} tokens of the decodes in a step."
    yield ""
    yield "Error: the 95th percentile, over held-out configurations and rounds, of |measured / predicted - 1|. One"
    yield "configuration at a time is held out, with all its rounds, and predicted by the fit to the others. Steady: the same"
    yield "at the typical speed, so without how the host wavered. Bias: the median of measured / predicted - 1 at that speed."
    yield from error_table(calibration.regions)
    yield ""
    yield from costs(job, calibration)


def _text(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    # A number without a point, as in 1e-06, would be text to some readers of YAML.
    return format(value, "#.5g") if isinstance(value, float) else str(value)
