"""Fit conf/timing/profile.yaml and conf/timing/splitwise_sim.yaml to the measured Splitwise profile.

    python tools/fit_timing.py            print both files
    python tools/fit_timing.py --write    write them

The profile is $EMU_DATA/splitwise_profile/perf_model.csv; HEADER, the top of profile.yaml, states the method.
`python tools/validate_timing.py` prints how well the fits meet the measurements.
"""

import csv
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out
import hints  # noqa: F401  before what this Python may lack

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
MAX_SEQ_CONTEXT_TOKENS = 8320  # the longest profiled prompt, 8,192, and its 128 output tokens
PUBLISHED = "2024-03-29"  # the first commit of perf_model.csv
MAX_PREFILL_TOKENS = 8192  # of the longest profiled prompt
MIN_COMPUTE_BOUND_TOKENS, MAX_COMPUTE_BOUND_TOKENS = 512, 2048  # between these the measured prefill is a line over the tokens


class Config(NamedTuple):
    """One profiled configuration: `batch_size` requests of `prompt_tokens` in and `output_tokens` out."""

    prompt_tokens: int
    batch_size: int
    output_tokens: int

    @property
    def batch_tokens(self) -> int:
        return self.prompt_tokens * self.batch_size

    @property
    def num_pairs(self) -> int:
        """Pairs of tokens of different prompts, which do not attend to each other."""
        return self.batch_tokens**2 - self.batch_size * self.prompt_tokens**2

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
    groups: dict[int, list[float]] = defaultdict(list)  # times by tokens: of one prompt, where that was measured
    batches: list[Config] = []
    for config, prefill_s in medians.items():
        if config.batch_size == 1:
            groups[config.batch_tokens].append(prefill_s)
        elif config.batch_tokens <= MAX_PREFILL_TOKENS:
            batches.append(config)
    single = {num_tokens: float(np.mean(times)) for num_tokens, times in groups.items()}
    savings = [(single[c.batch_tokens] - medians[c]) / c.num_pairs for c in batches if c.batch_tokens in single]
    pair_saving_s = float(np.median(savings))
    for config in batches:
        if config.batch_tokens not in single:
            groups[config.batch_tokens].append(medians[config] + pair_saving_s * config.num_pairs)
    tokens = sorted(groups)
    times = non_decreasing([float(np.mean(groups[n])) for n in tokens], [len(groups[n]) for n in tokens])
    line = [i for i, n in enumerate(tokens) if MIN_COMPUTE_BOUND_TOKENS <= n <= MAX_COMPUTE_BOUND_TOKENS]
    slope = float(np.polyfit([tokens[i] for i in line], [times[i] for i in line], 1)[0])
    start = line[0]
    corner = round(tokens[start] - (times[start] - times[start - 1]) / slope)
    if tokens[start - 1] < corner < tokens[start]:
        tokens.insert(start, corner)
        times.insert(start, times[start - 1])
    return {"prefill_tokens": tokens, "prefill_s": times, "pair_saving_s": pair_saving_s}


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
        family = ProfileFamily(TENSOR_PARALLEL, MAX_SEQ_CONTEXT_TOKENS, fits)
        return family.for_machine(self.model, self.hardware)


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

prefill_s: seconds of a pass over one prompt by its tokens: means of the medians at equal tokens, made non-decreasing
  by isotonic regression. A point that is no power of two is where the compute-bound line of 512 to 2,048 tokens meets
  the launch-bound time of short prompts. Tokens without a row of one prompt (held out, in validation) take those of
  several, with the saving below taken off.
pair_saving_s: what each pair of tokens of different prompts saves, as they do not attend to each other: median over
  the batches of 2 to 16 prompts of 512. Negative for Llama on A100, where such a batch takes 7 to 34 % longer than one
  prompt of all its tokens.
decode_s: seconds of a step by its number of sequences (prompt 512, output 128) less the reading of the KV cache,
  non-decreasing likewise; at one sequence the intercept of a line over the context of all batch-1 rows.
kv_bandwidth_share: KV bytes per token over that line's slope, as a share of HBM bandwidth, at most 1. Llama's is as
  measured: as if its attention read one KV head per query head, 8 x the bytes, at 0.6 of the bandwidth.

`python tools/validate_timing.py` prints the errors of this fit, of its predictions of what it was not fitted to, and
how far the machine's own repeats lie apart.
"""
SIM_HEADER = """\
The timing lookup of the published Splitwise simulator (splitwise-sim, MIT, commit 8f99e7d), for comparing results.
Facts from its data/perf_model.csv: medians in seconds by batch_tokens = prompt_size x batch_size. It looks decode steps
up by their number of sequences on this axis, which is 39-51 % too fast at batch 64: timing=profile is for predictions.
`python tools/fit_timing.py --write` writes this file.
"""
OPTIONS = """\
_target_: emu.core.timing.profile.ProfileFamily
_convert_: all
name: profile
source: "splitwise-sim, data/perf_model.csv (Patel et al., ISCA 2024); dgx_h100_capped: 1.3 x the prefill of dgx_h100"
date: "{date}"   # of the publication; the day of the measurement is not known
error: "{error}"
tensor_parallel: {tensor_parallel}
max_seq_context_tokens: {max_seq_context_tokens}   # mean over the sequences of a step"""
SIM_OPTIONS = f"""\
_target_: emu.compat.splitwise_sim.timing.SplitwiseSimFamily
_convert_: all
tensor_parallel: {TENSOR_PARALLEL}
mixed_factor: 1.1"""


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


def files(pairs: list[Pair], error: str) -> dict[Path, str]:
    """The files this tool writes, and their text; `error` is how far the fit is from what it was not fitted to."""
    options = OPTIONS.format(
        date=PUBLISHED, error=error, tensor_parallel=TENSOR_PARALLEL, max_seq_context_tokens=MAX_SEQ_CONTEXT_TOKENS
    )
    sim = family_yaml(SIM_HEADER, SIM_OPTIONS, pairs, lambda pair: splitwise_sim_points(pair.times), "")
    return {
        CONF / "profile.yaml": family_yaml(HEADER, options, pairs, Pair.fit, "#.5g"),
        CONF / "splitwise_sim.yaml": sim,
    }


def all_pairs() -> list[Pair]:
    return [Pair(model, hardware) for model in MODELS for hardware in HARDWARE]


def main() -> int:
    from validate_timing import stated_error  # which imports this module

    try:
        pairs = all_pairs()
    except OSError as error:
        print(f"fit_timing: {error.filename}: {error.strerror}; set EMU_DATA to the folder of the data", file=sys.stderr)
        return 2
    for path, text in files(pairs, stated_error(pairs)).items():
        if "--write" in sys.argv[1:]:
            path.write_text(text)
        else:
            print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
