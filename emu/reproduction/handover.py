"""What handing over the KV cache costs a request that has its machines to itself (Splitwise, §VI-A, Figs. 14 and 15).

One prompt and one token machine, requests with the coding service's lengths, so far apart that none meets another: what is
left is the phases and the hand-over. It is set against one machine that does both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emu.build import build, compose, plain
from emu.core.setting import SettingError
from emu.reproduction.claim import Claim
from emu.reproduction.finding import ClaimFigure, Finding
from emu.reproduction.lab import CALIBRATED, COMPATIBLE, Lab
from emu.results.distribution import p99_name, percentile

NUM_REQUESTS, APART_S = 1000, 250.0  # 1,899 output tokens take some 100 s
LARGE_PROMPT_TOKENS = 5188  # the 90th percentile of coding
NO_LATENCY = "runtime.control_latency_s=0"  # the paper has no control messages; a machine's own comparison has them too
PLANS = {"layer-wise": 512, "serialized": "inf"}
HARDWARE = {"DGX-H100": ("splitwise_hh", "baseline_h100", 50e9), "DGX-A100": ("splitwise_aa", "baseline_a100", 25e9)}
PAPER_CONSTANT_S = {"DGX-H100": 0.005, "DGX-A100": 0.008}  # of a layer-wise hand-over, whatever its size (§VI-A)
PAPER_SECOND_TOKEN = {"layer-wise": 0.165, "serialized": 0.64}
PAPER_E2E = {"layer-wise": 0.008, "serialized": 0.03}


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """Seconds of each request (float64, one entry a request of two tokens or more): from its first to its second token, and
    from arrival to its last; and its prompt's tokens."""

    prompt_tokens: np.ndarray
    second_token_s: np.ndarray
    e2e_s: np.ndarray


def observe_alone(overrides: list[str]) -> dict[str, Any]:
    """Run it and return the fields of `Alone` as lists. Raises SettingError where two requests met."""
    plan = build(compose(overrides))
    record = plan.run(run_dir=Path(), log_events=False)
    if record.interrupted:
        raise KeyboardInterrupt
    requests = record.recorder.columns().requests
    if (requests.last_token_s[:-1] > requests.arrival_s[1:]).any():
        raise SettingError(f"requests {APART_S:g} s apart met: {' '.join(overrides)}")
    chosen = requests.output_tokens > 1
    return {
        "prompt_tokens": requests.prompt_tokens[chosen].tolist(),
        "second_token_s": (requests.second_token_s - requests.first_token_s)[chosen].tolist(),
        "e2e_s": requests.e2e_s[chosen].tolist(),
    }


@dataclass(frozen=True, slots=True)
class HandoverClaim(Claim):
    """Overheads of the hand-over, layer by layer and after the prefill."""

    def measure(self, lab: Lab) -> Finding:
        figures: list[ClaimFigure] = []
        constants: list[str] = []
        why: list[str] = []
        for hardware, (split, together, one_link_bytes_per_s) in HARDWARE.items():
            colocated = [f"cluster={together}", "cluster.num_machines=1"]
            base, base_without = _alone(lab, colocated), _alone(lab, [*colocated, NO_LATENCY])
            sizes = [f"cluster={split}", "cluster.num_prompt=1", "cluster.num_token=1"]
            constants.append(_constant(hardware, base_without))
            for plan, min_tokens in PLANS.items():
                chosen = [*sizes, f"transfer.layerwise_min_tokens={min_tokens}"]
                link = _alone(lab, [*chosen, NO_LATENCY])
                whole = _alone(lab, chosen)
                pairs: dict[str, tuple[Alone, Alone] | None] = {
                    "link alone": (link, base_without),
                    "with control messages of 5 ms": (whole, base),
                    COMPATIBLE: _compatible(lab, sizes, together) if plan == "serialized" else None,
                }
                figures += _figures(hardware, plan, pairs)
                nics = (f"cluster.{role}_hardware.nic_bytes_per_s={one_link_bytes_per_s}" for role in ("prompt", "token"))
                one_link = _alone(lab, [*chosen, NO_LATENCY, *nics])
                why.append(_told(hardware, plan, base_without, link, whole, one_link, one_link_bytes_per_s))
        return Finding(self.name, self.where, self.says, tuple(figures), " ".join(constants), tuple(why))


def _alone(lab: Lab, overrides: list[str], experiment: str = "") -> Alone:
    load = ["workload=azure_code", "workload.arrivals=constant"]
    rate = [f"workload.rate_rps={1 / APART_S}", f"workload.duration_s={_num_requests(lab) * APART_S}"]
    chosen = [*([experiment] if experiment else []), "runtime=virtual", f"model={lab.model}", *overrides, *load, *rate]
    measured = lab.store.get(["alone", plain(compose(chosen))], lambda: observe_alone(chosen))
    return Alone(**{name: np.array(values) for name, values in measured.items()})


def _num_requests(lab: Lab) -> int:
    return min(NUM_REQUESTS, round(NUM_REQUESTS * lab.effort.duration_s / 120))


def _compatible(lab: Lab, sizes: list[str], together: str) -> tuple[Alone, Alone]:
    experiment = "experiment=splitwise_sim"
    return _alone(lab, sizes, experiment), _alone(lab, [f"cluster={together}", "cluster.num_machines=1"], experiment)


def _pair(pairs: dict[str, tuple[Alone, Alone] | None], name: str) -> tuple[Alone, Alone]:
    pair = pairs[name]
    assert pair is not None  # only the compatible one may be lacking
    return pair


def _figures(hardware: str, plan: str, pairs: dict[str, tuple[Alone, Alone] | None]) -> Iterator[ClaimFigure]:
    link, messages = list(pairs)[:2]
    compatible = pairs[COMPATIBLE]
    large = _pair(pairs, link)[1].prompt_tokens >= LARGE_PROMPT_TOKENS

    def figure(what: str, of: str, pair: str, paper: float | None, chosen: np.ndarray | slice = slice(None)) -> ClaimFigure:
        values: dict[str, float | None] = {CALIBRATED: _overhead(*_pair(pairs, pair), of, chosen)}
        if pair == link and compatible is not None:
            values[COMPATIBLE] = _overhead(*compatible, of, chosen)
        return ClaimFigure(f"{what}, {plan}, {hardware}, {pair}", "change", paper, values)

    is_whole = plan == "layer-wise"  # its number for E2E is of all prompts, that of serialized ones of large prompts
    yield figure("second token", "second_token_s", link, PAPER_SECOND_TOKEN[plan])
    yield figure("second token", "second_token_s", messages, None)
    yield figure("E2E", "e2e_s", link, PAPER_E2E[plan] if is_whole else None)
    yield figure("E2E", "e2e_s", messages, None)
    yield figure(
        f"E2E of prompts of {LARGE_PROMPT_TOKENS:,} tokens and more",
        "e2e_s",
        link,
        None if is_whole else PAPER_E2E[plan],
        large,
    )


def _overhead(run: Alone, base: Alone, of: str, chosen: np.ndarray | slice = slice(None)) -> float:
    """Mean over the requests `chosen`, over the same of `base`, less 1."""
    return float(getattr(run, of)[chosen].mean() / getattr(base, of)[chosen].mean() - 1)


def _told(hardware: str, plan: str, base: Alone, link: Alone, whole: Alone, one_link: Alone, bytes_per_s: float) -> str:
    large = base.prompt_tokens >= LARGE_PROMPT_TOKENS
    added = {name: 1000 * (run.second_token_s - base.second_token_s) for name, run in (("link", link), ("whole", whole))}
    return (
        f"{hardware}, {plan}: the link alone adds {np.median(added['link']):.2f} ms to the second token at p50, "
        f"{percentile(added['link'], 99):.2f} ms at {p99_name(len(added['link']))}; control messages add another "
        f"{np.median(added['whole'] - added['link']):.2f} ms at p50. Prompts of {LARGE_PROMPT_TOKENS:,} tokens and more: E2E "
        f"{_overhead(link, base, 'e2e_s', large):+.1%} by the link alone. With one link of {bytes_per_s / 1e9:g} GB/s for a "
        f"machine in place of eight: second token {_overhead(one_link, base, 'second_token_s'):+.1%}, E2E "
        f"{_overhead(one_link, base, 'e2e_s'):+.1%}."
    )


def _constant(hardware: str, base: Alone) -> str:
    constant_s, gap_s = PAPER_CONSTANT_S[hardware], float(base.second_token_s.mean())
    return (
        f"{hardware}: the paper measures a constant {1000 * constant_s:g} ms that layer-wise sending does not hide, "
        f"{constant_s / gap_s:.1%} of a step of {1000 * gap_s:.1f} ms; here only the last layer and the link's latency remain."
    )
