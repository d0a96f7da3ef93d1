"""How well timing=profile predicts the measurements it was not fitted to, beside the published Splitwise simulator.

    python tools/validate_timing.py [--json FILE]

One profiled configuration at a time is held out with all its repeats, the model is fitted to the others by the code of
tools/fit_timing.py, and predicts it. A prefill does not depend on the output length, so its configuration is (prompts,
their tokens): all rows of one are held out together. Counted are the prefills that policies build, of one prompt of any
length or of up to 2,048 tokens together. The ends of the profiled range cannot be interpolated when they are held out, so
they stand apart, as do batches beyond 2,048 tokens. The published model is held to the same: its points are the medians of
all other configurations. The profile is $EMU_DATA/splitwise_profile/perf_model.csv.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out
import hints  # noqa: F401  before what this Python may lack

import numpy as np
from fit_timing import Config, Pair, all_pairs, splitwise_sim_points
from rich.console import Console
from rich.table import Table

from emu.compat.splitwise_sim.timing import SplitwiseSimTiming
from emu.core.timing.model import TimingModel

MAX_BUILT_TOKENS = 2048  # of several prompts in one pass: `max_batch_tokens` of every batching policy
MAX_ERROR = {"prefill": 5.0, "decode": 3.0}  # %, mean over the configurations inside the range
MAX_BATCH_64_ERROR = 5.0  # %
END_PROMPT_TOKENS, MAX_BATCH_SIZE = (128, 8192), 64  # the ends of the profiled range


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration: the median of its repeats, and in % of it how far they lie apart and around it, and errors.

    `tokens_out` is the prediction with every row of as many prompt tokens in all held out; None for decodes. `output_tokens`
    is 0 for a prefill. `where` is `inside` the range, at its `end`, or `beyond` what policies build.
    """

    phase: str
    prompt_tokens: int
    batch_size: int
    output_tokens: int
    where: str
    measured_s: float
    repeats_range: float
    repeats: float
    in_sample: float
    held_out: float
    tokens_out: float | None
    published_in_sample: float
    published_held_out: float


def published(pair: Pair, held_out: Callable[[Config], bool] = lambda config: False) -> TimingModel:
    points = splitwise_sim_points({config: times for config, times in pair.times.items() if not held_out(config)})
    return SplitwiseSimTiming(**points, mixed_factor=1.1)


def mape(errors: Iterable[float]) -> float:
    """Mean absolute percentage error."""
    return float(np.mean(np.abs(list(errors))))


def prefill_rows(pair: Pair) -> list[Row]:
    """A row for each (prompt, batch)."""
    rows = []
    for config in sorted({config._replace(output_tokens=0) for config in pair.times}):
        same = {other: pair.times[other][0] for other in pair.times if other[:2] == config[:2]}
        models = [
            pair.timing(),
            pair.timing(same.__contains__),
            pair.timing(lambda other, num_tokens=config.batch_tokens: other.batch_tokens == num_tokens),
            published(pair),
            published(pair, same.__contains__),
        ]
        measured_s = float(np.median([pair.prefill[other] for other in same]))
        repeats_s = [repeat_s for repeats_s in same.values() for repeat_s in repeats_s]
        predicted_s = [model.prefill_s([config.prompt_tokens] * config.batch_size) for model in models]
        rows.append(compare("prefill", config, measured_s, repeats_s, predicted_s))
    return rows


def decode_rows(pair: Pair) -> list[Row]:
    """A row for each (prompt, batch, output): the step of mean context."""
    rows = []
    for config, (_, repeats_s) in sorted(pair.times.items()):
        models = [pair.timing(), pair.timing(config.__eq__), published(pair), published(pair, config.__eq__)]
        predicted_s = [model.decode_s(config.batch_size, config.context_tokens) for model in models]
        rows.append(compare("decode", config, pair.decode[config], repeats_s, [*predicted_s[:2], None, *predicted_s[2:]]))
    return rows


def compare(phase: str, config: Config, measured_s: float, repeats_s: list[float], predicted_s: list[float | None]) -> Row:
    where = "inside"
    if phase == "prefill" and config.batch_size > 1 and config.batch_tokens > MAX_BUILT_TOKENS:
        where = "beyond"
    elif config.prompt_tokens in END_PROMPT_TOKENS or config.batch_size == MAX_BATCH_SIZE:
        where = "end"
    repeats, errors = (
        [time_s and 100 * (time_s / measured_s - 1) for time_s in times_s] for times_s in (repeats_s, predicted_s)
    )
    return Row(phase, *config, where, measured_s, max(repeats) - min(repeats), mape(repeats), *errors)


def summarize(pair: Pair, rows: list[Row]) -> dict:
    """The figures of one model and hardware, in %; `meets` says whether they are what they should be."""
    summary = {"model": pair.model.name, "hardware": pair.hardware.name}
    for phase, limit in MAX_ERROR.items():
        of_phase = [row for row in rows if row.phase == phase and row.where != "beyond"]
        inside = [row for row in of_phase if row.where == "inside"]
        figures = {
            "in_sample": mape(row.in_sample for row in of_phase),
            "held_out": mape(row.held_out for row in inside),
            "tokens_out": mape(row.tokens_out for row in inside) if phase == "prefill" else None,
            "published_in_sample": mape(row.published_in_sample for row in of_phase),
            "published_held_out": mape(row.published_held_out for row in inside),
            "repeats": mape(row.repeats for row in of_phase),
        }
        summary[phase] = figures | {"meets": figures["held_out"] <= limit}
    [batch_64] = [row for row in rows if row.phase == "decode" and row.batch_size == MAX_BATCH_SIZE]
    summary["decode_at_batch_64"] = {
        "in_sample": batch_64.in_sample,
        "published_in_sample": batch_64.published_in_sample,
        "meets": abs(batch_64.in_sample) <= MAX_BATCH_64_ERROR,
    }
    return summary


def stated_error(pairs: list[Pair]) -> str:
    """What conf/timing/profile.yaml says of its error: the means over held-out configurations, of what was measured."""
    measured = [pair for pair in pairs if not pair.hardware.name.endswith("_capped")]
    summaries = [summarize(pair, [*prefill_rows(pair), *decode_rows(pair)]) for pair in measured]
    ranges = []
    for phase in MAX_ERROR:
        errors = [summary[phase]["held_out"] for summary in summaries]
        ranges.append(f"{phase} {min(errors):.1f} to {max(errors):.1f} %")
    return f"{', '.join(ranges)}: mean absolute, each configuration held out in turn"


def summary_table(summaries: list[dict]) -> Table:
    columns = ["in-sample", "held out", "tokens out", "published", "repeats"]
    table = Table(
        "model",
        "hardware",
        *(f"prefill\n{name}" for name in columns),
        *(f"decode\n{name}" for name in columns if name != "tokens out"),
        "at batch\n64",
        "published",
        title="Mean absolute error in %",
    )
    keys = ["in_sample", "held_out", "tokens_out", "published_held_out", "repeats"]
    for summary in summaries:
        figures = [summary["prefill"][key] for key in keys]
        figures += [summary["decode"][key] for key in keys if key != "tokens_out"]
        figures += [summary["decode_at_batch_64"][key] for key in ("in_sample", "published_in_sample")]
        table.add_row(summary["model"], summary["hardware"], *(f"{figure:.1f}" for figure in figures))
    return table


def rows_table(title: str, rows: list[tuple[dict, Row]], held_out: bool) -> Table:
    names = ["in-sample", "held out" if held_out else "extrapolated", "published"]
    table = Table("model", "hardware", "phase", "prompts", "output", "ms", "repeats apart", *names, title=title)
    for summary, row in rows:
        errors = [row.in_sample, row.held_out, row.published_held_out]
        table.add_row(
            summary["model"],
            summary["hardware"],
            row.phase,
            f"{row.batch_size} x {row.prompt_tokens}",
            str(row.output_tokens or ""),
            f"{1000 * row.measured_s:.1f}",
            f"{row.repeats_range:.1f}",
            *(f"{error:+.1f}" for error in errors),
        )
    return table


LEGEND = """\
in-sample   the fit to everything, at all that policies build
held out    each configuration predicted by the fit to all others
tokens out  predicted without any row of as many prompt tokens: with seven points over 64 x the tokens, and throughput
            falling beyond 2,048 of them, the gap is too wide to interpolate; published simulator's points are as far apart
published   held out likewise, by the published simulator's lookup
repeats     single measurements around their median: the noise floor of any model
dgx_h100_capped is no measurement: 1.3 x the prefill and 1.0 x the decode of dgx_h100."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the summary and every configuration there")
    args = parser.parse_args()
    try:
        pairs = all_pairs()
    except OSError as error:
        print(f"validate_timing: {error.filename}: {error.strerror}; set EMU_DATA to the folder of the data", file=sys.stderr)
        return 2
    rows = [(pair, [*prefill_rows(pair), *decode_rows(pair)]) for pair in pairs]
    summaries = [summarize(pair, rows_of) for pair, rows_of in rows]
    every = [(summary, row) for summary, (_, rows_of) in zip(summaries, rows, strict=True) for row in rows_of]
    measured = [(summary, row) for summary, row in every if not summary["hardware"].endswith("_capped")]
    worst = [item for item in measured if item[1].where == "inside" and abs(item[1].held_out) > MAX_ERROR["prefill"]]
    ends = [item for item in measured if item[1].where == "end"]
    beyond = [item for item in measured if item[1].where == "beyond"]
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(
        summary_table(summaries),
        LEGEND,
        rows_table("Single configurations off by more than 5 % when held out: error in %", worst, True),
        rows_table("Ends of the range, predicted from the rest: extrapolation, error in %", ends, False),
        rows_table("Batches no policy builds: error in %", beyond, True),
        sep="\n",
    )
    if args.json:
        rows_of = [{"model": s["model"], "hardware": s["hardware"], **asdict(row)} for s, row in every]
        args.json.write_text(json.dumps({"summary": summaries, "configurations": rows_of}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
