#!/usr/bin/env python
"""How fast the engine computes on a device, beside what the device can do at most. Needs neither Ray nor Hydra.

    python tools/bench_engine.py [--model llama_30m] [--device cuda] [--dtype bf16] [--batches 1,32,128] [--prompts 512,4096]

Weights are random: the time does not depend on them. Every figure is the median of several runs, each after a warm-up.

Prefill: one prompt, alone. Its ceiling is the time that all its multiplications would take at the speed of a matrix product:
the fastest of the model's own four shapes at that number of tokens, in the same dtype, measured here. Multiplications: 2 for
each weight of a matrix and token, the output layer's once, and causal attention's 4 x heads x head_dim x layers for each pair
of tokens.

Decode: one step of so many sequences, `--context` tokens each. Its floor is the time to read, once, the weights (not the
embeddings, of which a step needs a row a sequence) and the KV cache of the tokens attended to, at the bandwidth of the better
of a copy (counting what is read and what is written) and a sum over a large array, measured here.

`of_limit` is the limit's time over the measured one: 1 is the best that there could be.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out
import hints  # noqa: F401  before what this Python may lack

import torch

from emu.execution.model import Executable
from emu.execution.torch_engine.architecture import Architecture
from emu.execution.torch_engine.engine import Chunk, Engine, load_engine
from emu.execution.torch_engine.errors import EngineError

MODELS = Path(__file__).parents[1] / "conf" / "model"
ARRAY_BYTES = 1 << 30  # far beyond any cache
NUM_DECODE_STEPS = 20


@dataclass(frozen=True)
class Row:
    """`limit` is of the same unit as `tokens_per_s`: what the ceiling or the floor allows."""

    phase: str
    tokens: int
    sequences: int
    seconds: float
    tokens_per_s: float
    limit: float
    of_limit: float


def median_s(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of one call, the device done at its end."""

    def timed() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    timed()
    return statistics.median(timed() for _ in range(repeats))


def multiplications(a: Architecture, num_tokens: int) -> int:
    """Floating-point operations of the matrix products and the causal attention of one prompt."""
    layer = 2 * num_tokens * sum(inputs * outputs for inputs, outputs in shapes(a))
    attention = 4 * a.num_heads * a.head_dim * num_tokens * (num_tokens + 1) // 2
    return a.num_layers * (layer + attention) + 2 * a.hidden_size * a.vocab_size


def shapes(a: Architecture) -> list[tuple[int, int]]:
    """Inputs and outputs of a layer's four matrices."""
    qkv = (a.num_heads + 2 * a.num_kv_heads) * a.head_dim
    hidden, intermediate = a.hidden_size, a.intermediate_size
    return [(hidden, qkv), (a.num_heads * a.head_dim, hidden), (hidden, 2 * intermediate), (intermediate, hidden)]


def matrix_flops(engine: Engine, num_tokens: int, repeats: int) -> float:
    """Operations a second of the fastest of the model's matrix products with so many tokens."""
    kind = {"dtype": engine.dtype, "device": engine.device}
    speeds = []
    for inputs, outputs in shapes(engine.architecture):
        x, weight = torch.randn(num_tokens, inputs, **kind), torch.randn(outputs, inputs, **kind)
        seconds = median_s(lambda x=x, weight=weight: torch.nn.functional.linear(x, weight), engine.device, repeats)
        speeds.append(2 * num_tokens * inputs * outputs / seconds)
    return max(speeds)


def bandwidth(device: torch.device, repeats: int) -> float:
    """Bytes a second between the device and its memory."""
    source = torch.ones(ARRAY_BYTES // 4, device=device)
    target = torch.zeros_like(source)
    copied = 2 * ARRAY_BYTES / median_s(lambda: target.copy_(source), device, repeats)
    return max(copied, ARRAY_BYTES / median_s(source.sum, device, repeats))


def prefill_rows(engine: Engine, prompts: list[int], repeats: int) -> Iterator[Row]:
    for num_tokens in prompts:
        blocks = range(-(-num_tokens // engine.cache.block_tokens))
        chunk = Chunk([token % engine.architecture.vocab_size for token in range(num_tokens)], 0, blocks)
        seconds = median_s(lambda chunk=chunk: engine.step([chunk]), engine.device, repeats)
        ceiling_s = multiplications(engine.architecture, num_tokens) / matrix_flops(engine, num_tokens, repeats)
        yield Row("prefill", num_tokens, 1, seconds, num_tokens / seconds, num_tokens / ceiling_s, ceiling_s / seconds)


def decode_rows(engine: Engine, batches: list[int], context: int, bytes_per_s: float) -> Iterator[Row]:
    a = engine.architecture
    size = engine.dtype.itemsize
    weights = (a.num_params - (0 if a.tied_embeddings else a.vocab_size * a.hidden_size)) * size
    each = blocks_each(context, engine.cache.block_tokens)
    for batch in batches:
        tables = [range(index * each, (index + 1) * each) for index in range(batch)]
        steps = ([Chunk([1], context + step, own) for own in tables] for step in range(NUM_DECODE_STEPS + 1))
        seconds = median_s(lambda steps=steps: engine.step(next(steps)), engine.device, NUM_DECODE_STEPS)
        attended = batch * (context + NUM_DECODE_STEPS // 2) * a.kv_values_per_token * size
        floor_s = (weights + attended) / bytes_per_s
        yield Row("decode", context, batch, seconds, batch / seconds, batch / floor_s, floor_s / seconds)


def blocks_each(context: int, block_tokens: int) -> int:
    return -(-(context + NUM_DECODE_STEPS + 1) // block_tokens)


def read_model(name: str) -> tuple[Architecture, str]:
    """The architecture and default dtype of an option of conf/model, or of a folder with a config.json."""
    if Path(name).is_dir():
        architecture = Architecture.from_folder(name)
        return architecture, architecture.dtype
    path = MODELS / f"{name}.yaml"
    if not path.is_file():
        raise EngineError(f"--model {name}: expected a folder with config.json, or one of {', '.join(executable_models())}")
    try:
        import yaml
    except ImportError as error:
        raise EngineError(f"--model {name}: reading it needs PyYAML; a folder with config.json does not") from error
    option = yaml.safe_load(path.read_text())
    return Architecture.from_config(option["config"], str(path)), option["dtype"]


def executable_models() -> list[str]:
    return sorted(path.stem for path in MODELS.glob("*.yaml") if "model.random_model" in path.read_text())


def show(rows: list[Row]) -> str:
    lines = [f"{'':8}{'tokens':>8}{'sequences':>10}{'ms':>11}{'tokens/s':>11}{'limit':>11}{'of limit':>9}"]
    for row in rows:
        counts = f"{row.phase:8}{row.tokens:8}{row.sequences:10}"
        lines.append(f"{counts}{1e3 * row.seconds:11.3f}{row.tokens_per_s:11.1f}{row.limit:11.1f}{row.of_limit:9.1%}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama_30m", help="an option of conf/model, or a Hugging Face folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="", help="fp32, fp16 or bf16 (default: the model's)")
    parser.add_argument("--batches", type=whole_numbers, default=[1, 32, 128], help="sequences of a decode step")
    parser.add_argument("--context", type=int, default=1024, help="tokens of each before the step")
    parser.add_argument("--prompts", type=whole_numbers, default=[512, 1024, 2048, 4096], help="tokens of a prompt")
    parser.add_argument("--block-tokens", type=int, default=0, help="tokens of a KV block (default: 16, on a GPU 256)")
    parser.add_argument("--num-threads", type=int, default=0, help="of torch on a CPU (default: its own choice)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    try:
        architecture, dtype = read_model(options.model)
        block_tokens = options.block_tokens or (256 if options.device.startswith("cuda") else 16)
        num_blocks = max(
            max(options.batches) * blocks_each(options.context, block_tokens), -(-max(options.prompts) // block_tokens)
        )
        engine = load_engine(
            Executable(architecture, options.dtype or dtype, ""),
            num_blocks=num_blocks,
            block_tokens=block_tokens,
            device=options.device,
            num_threads=options.num_threads,
        )
        for layer in engine.cache.layers:
            layer.normal_()
        with torch.inference_mode():
            bytes_per_s = bandwidth(engine.device, options.repeats)
            rows = [*prefill_rows(engine, options.prompts, options.repeats)]
            rows += decode_rows(engine, options.batches, options.context, bytes_per_s)
    except EngineError as error:
        print(f"bench_engine: {error}", file=sys.stderr)
        return 2
    on_gpu = engine.device.type == "cuda"
    name = torch.cuda.get_device_name(engine.device) if on_gpu else f"cpu, {torch.get_num_threads()} threads"
    print(f"{options.model} in {options.dtype or dtype} on {name}: {bytes_per_s / 1e9:.1f} GB/s")
    print(show(rows))
    if options.json:
        facts = {
            "model": options.model,
            "num_params": architecture.num_params,
            "dtype": options.dtype or dtype,
            "device": name,
            "torch": torch.__version__,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "block_tokens": block_tokens,
            "bytes_per_s": bytes_per_s,
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


def whole_numbers(text: str) -> list[int]:
    return [int(item) for item in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
