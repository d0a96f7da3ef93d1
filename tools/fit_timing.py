"""Fit conf/timing/profile.yaml and conf/timing/splitwise_sim.yaml to the measured Splitwise profile.

    python tools/fit_timing.py            print the error table of the fit
    python tools/fit_timing.py --write    and write both files

The profile is $EMU_DATA/splitwise_profile/perf_model.csv; HEADER, the top of profile.yaml, states the method.
"""

import csv
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hydra.utils import instantiate
from omegaconf import OmegaConf

from emu.core.timing.model import TimingModel
from emu.core.timing.profile import ProfileFamily

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf" / "timing"
DATA = Path(os.environ.get("EMU_DATA", ROOT / "../shared/data"))
MODELS = {"llama2_70b": "llama2-70b", "bloom_176b": "bloom-176b"}
HARDWARE = {"dgx_a100": "a100-80gb", "dgx_h100": "h100-80gb", "dgx_h100_capped": "h100-80gb-pcap"}
TENSOR_PARALLEL = 8
MAX_JOINT_PROMPT_TOKENS = 2048  # up to here the split of a pass into prompts hardly matters
MAX_SEQ_CONTEXT_TOKENS = 8320  # the longest profiled prompt, 8,192, and its 128 output tokens
MIN_COMPUTE_BOUND_TOKENS = 512  # from here to 2,048 the measured prefill is a line over the tokens


class Config(NamedTuple):
    """One profiled configuration: `batch_size` requests of `prompt_tokens` in and `output_tokens` out."""

    prompt_tokens: int
    batch_size: int
    output_tokens: int

    @property
    def batch_tokens(self) -> int:
        return self.prompt_tokens * self.batch_size

    @property
    def is_built(self) -> bool:
        """Whether policies build such a prefill: up to 2,048 tokens, or a single prompt."""
        return self.batch_size == 1 or self.batch_tokens <= MAX_JOINT_PROMPT_TOKENS

    @property
    def is_inside(self) -> bool:
        """Whether the profiled range holds without this configuration."""
        return 128 < self.prompt_tokens < 8192 and self.batch_size < 64

    @property
    def context_tokens(self) -> float:
        """Context of the mean decode step, summed over the batch."""
        return self.batch_size * (self.prompt_tokens + self.output_tokens / 2)


Times = dict[Config, tuple[list[float], list[float]]]  # prefill and decode times of the repeats, in seconds


def read_profile(model: str, hardware: str) -> Times:
    """Rows of one model and hardware as published; (512, 1, 128) is there three times, as part of three sweeps."""
    times: Times = defaultdict(lambda: ([], []))
    with open(DATA / "splitwise_profile" / "perf_model.csv", newline="") as file:
        for row in csv.DictReader(file):
            if (row["model"], row["hardware"], int(row["tensor_parallel"])) == (model, hardware, TENSOR_PARALLEL):
                config = Config(int(row["prompt_size"]), int(row["batch_size"]), int(row["token_size"]))
                times[config][0].append(float(row["prompt_time"]) / 1000)
                times[config][1].append(float(row["token_time"]) / 1000)
    return dict(times)


def non_decreasing(values: list[float], weights: list[int]) -> list[float]:
    """Isotonic regression by pooling adjacent violators."""
    pools: list[tuple[float, int, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, wa, na), (b, wb, nb) = pools[-2:]
            pools[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    return [mean for mean, _, length in pools for _ in range(length)]


def fit_prefill(medians: dict[Config, float]) -> dict:
    groups = defaultdict(list)
    for config, prefill_s in medians.items():
        if config.is_built:
            groups[config.batch_tokens].append(prefill_s)
    tokens = sorted(groups)
    times = non_decreasing([float(np.mean(groups[n])) for n in tokens], [len(groups[n]) for n in tokens])
    line = [i for i, n in enumerate(tokens) if MIN_COMPUTE_BOUND_TOKENS <= n <= MAX_JOINT_PROMPT_TOKENS]
    slope = float(np.polyfit([tokens[i] for i in line], [times[i] for i in line], 1)[0])
    start = line[0]
    corner = round(tokens[start] - (times[start] - times[start - 1]) / slope)
    if tokens[start - 1] < corner < tokens[start]:
        tokens.insert(start, corner)
        times.insert(start, times[start - 1])
    return {"prefill_tokens": tokens, "prefill_s": times}


def fit_decode(medians: dict[Config, float], kv_peak_s: float) -> dict:
    """`kv_peak_s`: seconds to read one token's KV at full HBM bandwidth, which no fit may beat."""
    single = {config.context_tokens: decode_s for config, decode_s in medians.items() if config.batch_size == 1}
    kv_read_s = max(float(np.polyfit(list(single), list(single.values()), 1)[0]), kv_peak_s)
    groups = defaultdict(list)
    for config, decode_s in medians.items():
        groups[config.batch_size].append(decode_s - kv_read_s * config.context_tokens)
    sizes = sorted(groups)
    base = non_decreasing([float(np.mean(groups[n])) for n in sizes], [len(groups[n]) for n in sizes])
    return {"decode_num_seqs": sizes, "decode_s": base, "kv_bandwidth_share": kv_peak_s / kv_read_s}


class Pair:
    """One model on one kind of machine: its measurements, and fits to all or some of them."""

    def __init__(self, model: str, hardware: str) -> None:
        self.model = instantiate(OmegaConf.load(ROOT / "conf" / "model" / f"{model}.yaml"))
        self.hardware = instantiate(OmegaConf.load(ROOT / "conf" / "hardware" / f"{hardware}.yaml"))
        self.name = f"{model:11} {hardware:15}"
        self.times = read_profile(MODELS[model], HARDWARE[hardware])
        self.prefill = {config: float(np.median(prefill)) for config, (prefill, _) in self.times.items()}
        self.decode = {config: float(np.median(decode)) for config, (_, decode) in self.times.items()}

    def fit(self, held_out: Callable[[Config], bool] = lambda config: False) -> dict:
        prefill = {config: time for config, time in self.prefill.items() if not held_out(config)}
        decode = {config: time for config, time in self.decode.items() if not held_out(config)}
        kv_peak_s = self.model.kv_bytes_per_token / (self.hardware.num_gpus * self.hardware.hbm_bytes_per_s)
        return fit_prefill(prefill) | fit_decode(decode, kv_peak_s)

    def timing(self, held_out: Callable[[Config], bool] = lambda config: False) -> TimingModel:
        fits = {self.model.name: {self.hardware.name: self.fit(held_out)}}
        family = ProfileFamily(TENSOR_PARALLEL, MAX_JOINT_PROMPT_TOKENS, MAX_SEQ_CONTEXT_TOKENS, fits)
        return family.for_machine(self.model, self.hardware)

    def prefill_error(self, timing: TimingModel, config: Config) -> float:
        """Relative error of `timing` against the median measurement."""
        return timing.prefill_s([config.prompt_tokens] * config.batch_size) / self.prefill[config] - 1

    def decode_error(self, timing: TimingModel, config: Config) -> float:
        return timing.decode_s(config.batch_size, config.context_tokens) / self.decode[config] - 1


def mape(errors: list[float]) -> float:
    return 100 * float(np.mean(np.abs(errors)))


def errors(pair: Pair) -> list[float]:
    """The columns of the error table, in %."""
    timing = pair.timing()
    built = [config for config in pair.times if config.is_built]
    inside = [config for config in pair.times if config.is_inside]
    inputs = {config[:2]: config for config in inside if config.is_built}
    without = {config: pair.timing(lambda other, config=config: other == config) for config in inside}
    without_input = {i: pair.timing(lambda other, i=i: other[:2] == i) for i in inputs}
    return [
        mape([pair.prefill_error(timing, config) for config in built]),
        mape([pair.prefill_error(without[config], config) for config in inside if config.is_built]),
        mape([pair.prefill_error(without_input[i], config) for i, config in inputs.items()]),
        mape([time / pair.prefill[config] - 1 for config in built for time in pair.times[config][0]]),
        mape([pair.decode_error(timing, config) for config in pair.times]),
        mape([pair.decode_error(without[config], config) for config in inside]),
        100 * pair.decode_error(timing, Config(512, 64, 128)),
        mape([time / pair.decode[config] - 1 for config in pair.times for time in pair.times[config][1]]),
    ]


def joint_errors(pair: Pair) -> list[float]:
    """Errors in % where several prompts exceed 2,048 tokens together, by their number."""
    timing = pair.timing()
    return [100 * pair.prefill_error(timing, config) for config in sorted(pair.times) if not config.is_built]


def splitwise_sim_points(times: Times) -> dict:
    """Medians by prompt_size x batch_size over all rows; what is in the file three times counts three times."""
    groups = defaultdict(lambda: ([], []))
    for config, (prefill, decode) in times.items():
        groups[config.batch_tokens][0].extend(prefill)
        groups[config.batch_tokens][1].extend(decode)
    tokens = sorted(groups)
    prefill_s, decode_s = ([float(np.median(groups[n][phase])) for n in tokens] for phase in (0, 1))
    return {"batch_tokens": tokens, "prefill_s": prefill_s, "decode_s": decode_s}


HEADER = """\
Times of one forward pass, fitted to the measured Splitwise profile. Written by `python tools/fit_timing.py --write`.
Source: splitwise-sim, data/perf_model.csv (MIT; Patel et al., ISCA 2024), tensor parallelism 8, medians of 5 repeats.
dgx_h100_capped was not measured: it is the profile's own 1.3 x prefill and 1.0 x decode of dgx_h100.

prefill_s: seconds of a pass by its prompt tokens. Through the batch-1 rows and, up to 2,048 tokens, those of several
  512-token prompts (mean of the medians at equal tokens), made non-decreasing by isotonic regression. A point that is
  no power of two is where the compute-bound line of 512 to 2,048 tokens meets the launch-bound time of short prompts.
decode_s: seconds of a step by its number of sequences (prompt 512, output 128) less the reading of the KV cache,
  non-decreasing likewise; at one sequence the intercept of a line over the context of all batch-1 rows.
kv_bandwidth_share: KV bytes per token over that line's slope, as a share of HBM bandwidth, at most 1. Llama's is as
  measured: as if its attention read one KV head per query head, 8 x the bytes, at 0.6 of the bandwidth.

Errors in %, mean over configurations of |fit / median - 1|, prefill up to 2,048 tokens or of a single prompt:
  held out   each (prompt, batch, output) predicted by the fit to all others, inside the range
  input out  each (prompt, batch) predicted by the fit to all others, inside the range
  repeats    single measurements around their median
"""
ERROR_TITLE = """\
                              prefill      held     input             decode      held  at batch
model       hardware        in-sample       out       out   repeats in-sample       out        64   repeats"""
JOINT_TITLE = """
Not fitted: several prompts beyond 2,048 tokens together (no policy builds them; flagged as extrapolated), error in %:
model       hardware            8x512    16x512    32x512    64x512"""
SIM_HEADER = """\
The timing lookup of the published Splitwise simulator (splitwise-sim, MIT, commit 8f99e7d), for comparing results.
Facts from its data/perf_model.csv: medians in seconds by batch_tokens = prompt_size x batch_size. It looks decode steps
up by their number of sequences on this axis, which is 39-51 % too fast at batch 64: timing=profile is for predictions.
`python tools/fit_timing.py --write` writes this file.
"""
OPTIONS = f"""\
_target_: emu.core.timing.profile.ProfileFamily
_convert_: all
tensor_parallel: {TENSOR_PARALLEL}
max_joint_prompt_tokens: {MAX_JOINT_PROMPT_TOKENS}   # several prompts in one pass
max_seq_context_tokens: {MAX_SEQ_CONTEXT_TOKENS}    # mean over the sequences of a step"""
SIM_OPTIONS = f"""\
_target_: emu.core.timing.splitwise_sim.SplitwiseSimFamily
_convert_: all
tensor_parallel: {TENSOR_PARALLEL}
mixed_factor: 1.1"""


def error_table(pairs: list[Pair]) -> str:
    def rows(columns: Callable[[Pair], list[float]]) -> list[str]:
        return [pair.name + "".join(f"{column:10.1f}" for column in columns(pair)) for pair in pairs]

    return "\n".join([ERROR_TITLE, *rows(errors), JOINT_TITLE, *rows(joint_errors)])


def family_yaml(header: str, options: str, pairs: list[Pair], fit: Callable[[Pair], dict], float_format: str) -> str:
    """One file of conf/timing: what `fit` yields for each pair, under `options`."""

    def text(value: object) -> str:
        if isinstance(value, list):
            return f"[{', '.join(map(text, value))}]"
        return format(value, float_format) if isinstance(value, float) else str(value)

    lines = [f"# {line}".rstrip() for line in header.splitlines()] + options.splitlines() + ["fits:"]
    for model in MODELS:
        lines.append(f"  {model}:")
        for pair in pairs:
            if pair.model.name == model:
                lines.append(f"    {pair.hardware.name}:")
                lines += [f"      {key}: {text(value)}" for key, value in fit(pair).items()]
    return "\n".join(lines) + "\n"


def files(pairs: list[Pair]) -> dict[Path, str]:
    """The files this tool writes, and their text."""
    header = HEADER + error_table(pairs)
    return {
        CONF / "profile.yaml": family_yaml(header, OPTIONS, pairs, Pair.fit, ".6f"),
        CONF / "splitwise_sim.yaml": family_yaml(
            SIM_HEADER, SIM_OPTIONS, pairs, lambda pair: splitwise_sim_points(pair.times), ""
        ),
    }


def all_pairs() -> list[Pair]:
    return [Pair(model, hardware) for model in MODELS for hardware in HARDWARE]


if __name__ == "__main__":
    print(error_table(all_pairs()))
    if "--write" in sys.argv[1:]:
        for path, text in files(all_pairs()).items():
            path.write_text(text)
