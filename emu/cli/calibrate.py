"""Measure how long steps of a model take on this host, and write the timing model to conf/timing/NAME.yaml.

    emu calibrate --name llama_30m_cpu --model llama_30m --hardware cpu_core [--quick] [KEY=VALUE ...]

--model and --hardware are options of conf/model and conf/hardware; KEY=VALUE changes them, as model.dtype=bf16, or
model.path=FOLDER with --model checkpoint. The hardware's memory bounds the KV cache. timing=NAME is then the timing of that
model on that hardware. It takes some minutes; stopped, it goes on with the same command. Leave the host alone meanwhile: what
other processes take shows as error.

On a machine that has only torch and numpy, and so cannot read conf/, give the model by its Hugging Face config.json:

    emu calibrate --name llama3_8b_h100 --model llama3_8b --hardware h100 --device cuda --config FILE --dtype bf16

Weights are then random, and --hardware is only the name under which the timing is filed.
Exit codes: 0, 2 for wrong input, 130 for Ctrl-C.
"""

import argparse
import pkgutil
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

from emu.core.specs import ModelSpec
from emu.execution.calibration.job import FULL, MAX_CONTEXT, MAX_NUM_SEQS, QUICK, Job
from emu.execution.calibration.progress import progress_lines
from emu.execution.model import Executable, random_model
from emu.files import parse_json, read_text

CONF = Path(__file__).parents[1] / "conf" / "timing"
MEASUREMENTS = Path("runs/calibrations")
FAMILY = "emu.core.timing.calibrated.CalibratedFamily"
BLOCK_TOKENS = 16


class InputError(ValueError):
    """Arguments that cannot be used. The text is one line for the user."""


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("emu calibrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = _refuse  # type: ignore[method-assign]  # as argparse documents it
    parser.add_argument("--name", required=True, help="of the file in conf/timing: lower case, digits and _")
    parser.add_argument("--model", required=True, help="an option of conf/model that can be executed")
    parser.add_argument("--hardware", required=True, help="an option of conf/hardware")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--num-threads", type=int, default=1, metavar="N", help="of a step on a CPU (default: %(default)s)")
    parser.add_argument(
        "--beside",
        type=int,
        metavar="N",
        help="other machines at work on this host meanwhile, as in a cluster of real ones on it (default: 1 on a CPU, else 0)",
    )
    parser.add_argument("--quick", action="store_true", help="fewer configurations and rounds: under a minute")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the model's config.json, instead of conf/")
    parser.add_argument(
        "--dtype", default="bf16", choices=("fp32", "fp16", "bf16"), help="with --config (default: %(default)s)"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_intermixed_args(argv)
    if not re.fullmatch(r"[a-z0-9_]+", args.name):
        raise InputError(f"--name {args.name}: expected lower case letters, digits and _")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", args.device):
        raise InputError(f"--device {args.device}: expected cpu, cuda or cuda:N")
    if args.num_threads < 1:
        raise InputError(f"--num-threads {args.num_threads}: expected a whole number >= 1")
    if args.beside is None:
        args.beside = int(args.device == "cpu")
    if args.beside < 0:
        raise InputError(f"--beside {args.beside}: expected a whole number >= 0")
    target = CONF / f"{args.name}.yaml"
    if target.exists() and FAMILY not in target.read_text():
        raise InputError(f"--name {args.name}: {target} is there and no calibration; expected another name")
    return args


def _refuse(message: str) -> NoReturn:
    raise InputError(f"{message}; see --help")


def job_of(args: argparse.Namespace) -> Job:
    """What the arguments ask for. Raises ValueError, the text one line for the user."""
    if args.config is not None:
        if args.overrides:
            raise InputError(f"{args.overrides[0]}: goes with conf/, not with --config")
        try:
            config = parse_json(read_text(args.config))
        except (OSError, ValueError) as error:
            raise InputError(f"--config {args.config}: {error}; expected a Hugging Face config.json") from error
        model, hardware_name, block_tokens = random_model(args.model, args.dtype, config), args.hardware, BLOCK_TOKENS
        kind = args.device.partition(":")[0]
        max_kv_blocks = MAX_NUM_SEQS[kind] * MAX_CONTEXT[kind] // BLOCK_TOKENS
    else:
        model, hardware, block_tokens = _from_conf(args)
        hardware_name, max_kv_blocks = hardware.name, hardware.num_kv_blocks(model, block_tokens)
    if not isinstance(model.executable, Executable):
        raise InputError(f"--model {args.model}: is known by its timing only; expected one that can be executed, as llama_30m")
    effort = QUICK if args.quick else FULL
    return Job(model, hardware_name, args.device, args.num_threads, max_kv_blocks, block_tokens, args.beside, effort)


def _from_conf(args: argparse.Namespace) -> tuple[ModelSpec, Any, int]:
    try:
        from emu.build import compose, plain
        from emu.config_error import ConfigError, one_line_errors
        from emu.core.specs import HardwareSpec
        from emu.targets import check_targets
    except ImportError as error:
        raise InputError(
            f"reading conf/ needs {error.name}, which is not installed; expected --config FILE, see --help"
        ) from error
    reference = "hardware@slo.reference"  # of no meaning here, and without its own place in a configuration
    try:
        values = plain(compose([f"model={args.model}", f"{reference}={args.hardware}", *args.overrides]))
    except ConfigError as error:
        raise ConfigError(str(error).replace(reference, "hardware")) from error
    with one_line_errors():
        check_targets("model", values["model"], ModelSpec, {ModelSpec: "model"})
        check_targets("slo.reference", values["slo"]["reference"], HardwareSpec, {})
    return _made(values["model"]), _made(values["slo"]["reference"]), values["machine"].get("block_tokens", BLOCK_TOKENS)


def _made(node: dict[str, Any]) -> Any:
    values = {key: value for key, value in node.items() if key != "_convert_"}
    return pkgutil.resolve_name(values.pop("_target_"))(**values)


def main(argv: list[str]) -> int:
    try:
        args = arguments(argv)
        job = job_of(args)
        from emu.execution.calibration.timing_file import costs, error_table, write_timing  # loads torch

        command = shlex.join(["emu", "calibrate", *argv])
        target = CONF / f"{args.name}.yaml"
        say = progress_lines(f"{args.model} on {args.device}")
        calibration = write_timing(job, target, MEASUREMENTS / f"{args.name}.jsonl", command, say)
    except ValueError as error:
        print(f"emu calibrate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(*error_table(calibration.regions), "", *costs(job, calibration), "", sep="\n")
    print(f"wrote {target}; what to run next:")
    print(f"  emu validate timing={args.name} model={args.model}")
    print(f"  emu experiment=mixed timing={args.name} model={args.model}")
    return 0
