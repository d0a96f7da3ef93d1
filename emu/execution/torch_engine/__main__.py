"""`python -m emu.execution.torch_engine`: generate tokens after one prompt with a Hugging Face checkpoint."""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from emu.execution.model import Executable
from emu.execution.torch_engine.architecture import Architecture
from emu.execution.torch_engine.engine import load_engine
from emu.execution.torch_engine.errors import EngineError
from emu.execution.torch_engine.generate import Generation, check_prompt, generate
from emu.execution.torch_engine.sampling import Sampling
from emu.execution.torch_engine.tensor_parallel import check_divides, process_group, shard
from emu.execution.torch_engine.text import Text


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, or 2 after one line on stderr where something cannot be used. Under `torchrun` its processes share the
    model, and the first one prints the answer."""
    try:
        report = _run(_parser().parse_args(arguments))
    except EngineError as error:
        print(error, file=sys.stderr)
        return 2
    if _is_first():
        print(report)
    return 0


def _run(options: argparse.Namespace) -> str:
    _check(options)
    architecture = Architecture.from_folder(options.checkpoint)
    text = Text(options.checkpoint) if options.prompt is not None else None
    prompt = text.encode(options.prompt) if text else _ids(options.prompt_ids)
    check_prompt(architecture, prompt, options.max_new_tokens)
    dtype = options.dtype or architecture.dtype
    executable = Executable(architecture, dtype, "" if options.random_weights else options.checkpoint)
    load = partial(
        load_engine,
        executable,
        num_blocks=-(-(len(prompt) + options.max_new_tokens) // options.block_tokens),
        block_tokens=options.block_tokens,
        num_threads=options.num_threads,
    )
    eos_ids = () if options.ignore_eos else architecture.eos_ids
    rest = prompt, options.max_new_tokens, eos_ids, Sampling(options.temperature, 1.0, options.seed)
    num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if num_ranks == 1:
        answer = generate(load(device=options.device), *rest)
    else:
        check_divides(architecture, num_ranks)
        with process_group(options.device) as device:
            answer = generate(load(device=device, parallelize=shard), *rest)
    if options.logits and _is_first():
        with open(options.logits, "wb") as file:
            np.save(file, answer.logits)
    return _report(answer, len(prompt), text, dtype, options)


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _check(options: argparse.Namespace) -> None:
    for name, low in (("max_new_tokens", 1), ("block_tokens", 1), ("seed", 0), ("num_threads", 0)):
        if getattr(options, name) < low:
            raise EngineError(f"--{name.replace('_', '-')} {getattr(options, name)}: expected a whole number >= {low}")
    if not 0 <= options.temperature < float("inf"):
        raise EngineError(f"--temperature {options.temperature}: expected a number >= 0")
    if options.logits and not Path(options.logits).absolute().parent.is_dir():
        raise EngineError(f"--logits {options.logits}: no such folder")


def _report(answer: Generation, prompt_tokens: int, text: Text | None, dtype: str, options: argparse.Namespace) -> str:
    num_tokens = len(answer.token_ids)
    tokens_per_s = num_tokens / (answer.prefill_s + answer.decode_s)
    decoded = {"text": text.decode(answer.token_ids)} if text else {}
    if options.json:
        report = {
            "token_ids": answer.token_ids,
            **decoded,
            "prompt_tokens": prompt_tokens,
            "new_tokens": num_tokens,
            "prefill_s": answer.prefill_s,
            "decode_s": answer.decode_s,
            "tokens_per_s": tokens_per_s,
            "dtype": dtype,
            "device": options.device,
            "torch": torch.__version__,
        }
        return json.dumps(report)
    lines = [",".join(map(str, answer.token_ids)), *decoded.values()]
    times = f"prefill of {prompt_tokens} tokens {answer.prefill_s:.4g} s, decode {answer.decode_s:.4g} s"
    return "\n".join([*lines, f"{num_tokens} tokens, {tokens_per_s:.4g} tokens/s ({times}; {dtype} on {options.device})"])


def _ids(text: str) -> list[int]:
    try:
        return [int(item) for item in text.split(",") if item.strip()]
    except ValueError as error:
        raise EngineError(f"--prompt-ids {text}: expected whole numbers with commas between them, such as 1,2,3") from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line without the usage."""
        raise EngineError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m emu.execution.torch_engine", description=__doc__)
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="folder with config.json and safetensors")
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt-ids", metavar="IDS", help="token ids, such as 1,2,3")
    prompt.add_argument("--prompt", metavar="TEXT", help="text, for the folder's tokenizer.json")
    parser.add_argument("--max-new-tokens", type=int, default=16, metavar="N")
    parser.add_argument("--dtype", choices=("fp32", "fp16", "bf16"), help="default: the checkpoint's")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--ignore-eos", action="store_true", help="go on after an end-of-sequence token")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, takes the likeliest token")
    parser.add_argument("--seed", type=int, default=0, help="of the draws at a temperature > 0")
    parser.add_argument("--random-weights", action="store_true", help="needs config.json only")
    parser.add_argument("--block-tokens", type=int, default=16, metavar="N", help="tokens in a KV block (default: 16)")
    parser.add_argument("--num-threads", type=int, default=0, metavar="N", help="of torch on a CPU (default: its own choice)")
    parser.add_argument("--logits", metavar="FILE.npy", help="write float32 (new tokens, vocabulary): the logits of each")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if "RANK" in os.environ:
        os._exit(code)  # at an orderly end threads of gloo abort the process now and then, its group destroyed or not
    sys.exit(code)
