"""Which token comes next, from the logits."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Sampling(NamedTuple):
    """temperature 0: the likeliest token. Else one drawn from the likeliest tokens that together have probability `top_p`;
    the draw depends on `seed` and the token's position alone."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


GREEDY = Sampling()


@torch.inference_mode()
def next_tokens(logits: Tensor, samplings: Sequence[Sampling], positions: Sequence[int]) -> list[int]:
    """A token for each row of `logits` (n, V), by its sampling; `positions[i]` is where in its sequence it will stand."""
    tokens = logits.argmax(dim=-1)
    rows = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    if rows:
        drawn = [samplings[row] for row in rows]
        index = torch.tensor(rows, device=logits.device)
        tokens[index] = _draw(logits[index], drawn, [uniform(samplings[row].seed, positions[row]) for row in rows])
    return tokens.tolist()


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on nothing else: Philox, with the seed as key and the position as counter."""
    return np.random.Generator(np.random.Philox(key=seed, counter=position << 64)).random()


def _draw(logits: Tensor, samplings: Sequence[Sampling], uniforms: Sequence[float]) -> Tensor:
    """A token of each row by inverting the cumulative distribution over its likeliest tokens."""
    temperature, top_p, u = torch.tensor(
        [[s.temperature, s.top_p, x] for s, x in zip(samplings, uniforms, strict=True)], device=logits.device
    ).T[..., None]  # (n, 1) each
    probabilities, order = (logits / temperature).softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    before = probabilities.cumsum(dim=-1) - probabilities
    kept = torch.where(before < top_p, probabilities, 0.0)
    cumulative = kept.cumsum(dim=-1)
    place = (cumulative <= u * cumulative[:, -1:]).sum(dim=-1, keepdim=True)
    last_kept = (kept > 0).sum(dim=-1, keepdim=True) - 1  # where u is rounded to 1
    return order.gather(-1, place.minimum(last_kept))[:, 0]
