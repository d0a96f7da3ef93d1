"""Fit conf/power/phase.yaml to the GPU power in the measured Splitwise profile.

    python tools/fit_power.py            print the file
    python tools/fit_power.py --write    and write it

The profile is $EMU_DATA/splitwise_profile/perf_model.csv; HEADER, the top of the file, states the method.
"""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, median

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out
import hints  # noqa: F401  before what this Python may lack

from fit_timing import DATA, MODELS, TENSOR_PARALLEL, Config, non_decreasing

PATH = Path(__file__).resolve().parents[1] / "conf" / "power" / "phase.yaml"
MEASURED_HARDWARE = "a100-80gb"  # the only one with power
DECODE_PROMPT_TOKENS = 512  # of the rows that differ in batch size
HEADER = """\
# Each machine's power by what it is doing. Written by `python tools/fit_power.py --write`.
# Source of the shares: splitwise-sim, data/perf_model.csv (MIT; Patel et al., ISCA 2024), DGX-A100, tensor parallelism 8;
# power there is a fraction of a GPU's rated power, 0.0 where it was not measured (and on all DGX-H100): these are left out.
# The shares are applied to every hardware's own rated power, so that one method holds for a whole comparison.
#
# prefill_share: `peak_power` by the prompt tokens of a step, one prompt or several of 512: mean of the medians at equal
#   tokens, made non-decreasing by isotonic regression. The peak stands for the whole prefill: an upper bound. A GPU never
#   takes more than its gpu_power_w, though peaks of 1.02 were seen.
# decode_share: `average_power` by the number of sequences (prompt 512, output 128), non-decreasing likewise. 32 and 64
#   sequences were not measured: constant beyond 16. Longer prompts at one sequence read less, not more, and are left out.
# idle_share: an assumption, not in the profile: an A100 with a model loaded and nothing to do takes some 60 to 90 of 400 W.
# host_share: host power (CPUs, NVSwitches, NICs, fans) over the GPUs' rated power, idle or not. An assumption: what brings
#   a DGX-A100 at full load to its rated 6,500 W (6,500 / 3,200 - 1), and a DGX-H100 to 1.75 times that, as power=rated.
# uncapped_gpu_power_w: rated power of a GPU whose cap is its gpu_power_w. The shares are of the rated power: a cap at half
#   of it limits prefill and leaves decode, which takes less, as it is (Splitwise, §III).
_target_: emu.results.power.PhasePower
_convert_: all
idle_share: 0.2
host_share: 1.03125
uncapped_gpu_power_w:
  dgx_h100_capped: 700
fits:
"""

Shares = dict[int, list[float]]


def read_power(model: str) -> tuple[Shares, Shares]:
    """Medians of the repeats of each configuration: `peak_power` by prompt tokens, `average_power` by sequences."""
    peaks, averages = defaultdict(list), defaultdict(list)
    with open(DATA / "splitwise_profile" / "perf_model.csv", newline="") as file:
        for row in csv.DictReader(file):
            if (row["model"], row["hardware"], int(row["tensor_parallel"])) == (model, MEASURED_HARDWARE, TENSOR_PARALLEL):
                config = Config(int(row["prompt_size"]), int(row["batch_size"]), int(row["token_size"]))
                if float(row["peak_power"]) > 0:
                    peaks[config].append(float(row["peak_power"]))
                    averages[config].append(float(row["average_power"]))
    prefill, decode = defaultdict(list), defaultdict(list)
    for config in peaks:
        prefill[config.batch_tokens].append(median(peaks[config]))
        if config.prompt_tokens == DECODE_PROMPT_TOKENS:
            decode[config.batch_size].append(median(averages[config]))
    return prefill, decode


def curve(groups: Shares) -> tuple[list[int], list[float]]:
    x = sorted(groups)
    return x, non_decreasing([mean(groups[value]) for value in x], [len(groups[value]) for value in x])


def text() -> str:
    """The file this tool writes."""
    lines = []
    for name, profiled in MODELS.items():
        lines.append(f"  {name}:")
        for x_name, y_name, groups in zip(
            ("prefill_tokens", "decode_num_seqs"), ("prefill_share", "decode_share"), read_power(profiled), strict=True
        ):
            x, y = curve(groups)
            lines.append(f"    {x_name}: {x}")
            lines.append(f"    {y_name}: [{', '.join(f'{share:.3f}' for share in y)}]")
    return HEADER + "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {PATH.relative_to(PATH.parents[2])} too")
    args = parser.parse_args()
    try:
        content = text()
    except OSError as error:
        print(f"fit_power: {error.filename}: {error.strerror}; set EMU_DATA to the folder of the data", file=sys.stderr)
        return 2
    print(content, end="")
    if args.write:
        PATH.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
