"""When each token came out, derived from segments without listing the tokens one by one."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """One row for each stretch of consecutive steps that gave one request a token each; where tokens' times come from.

    Token `first_token` (the first output token is 1) came out at the end of step `first_step`, the next one at the end of the
    step after it, and so on to `last_step`, all on one machine. A prefill is a segment of one step. In order of request,
    first token and time.
    """

    request_id: np.ndarray  # int32
    attempt: np.ndarray  # int32
    first_step: np.ndarray  # int32
    last_step: np.ndarray  # int32, inclusive
    first_token: np.ndarray  # int32
    is_prefill: np.ndarray  # bool

    def __len__(self) -> int:
        return len(self.request_id)


class TokenTimes:
    """The times of every request's tokens.

    A token that came out more than once counts at its first emission. For each request: `num_out` distinct tokens,
    `num_recomputed` further emissions, and the times of its first, second and last token (NaN where there is none).

    Nearly all requests get their tokens in order and once each; for these everything is a slice of the steps. The others
    (started again from scratch) are listed token by token.
    """

    def __init__(self, segments: Segments, step_end_s: np.ndarray, num_requests: int) -> None:
        self._segments = segments
        self._step_end_s = step_end_s
        request_id, first_step, last_step = segments.request_id, segments.first_step, segments.last_step
        num_tokens = last_step - first_step + 1
        starts_s, ends_s = step_end_s[first_step], step_end_s[last_step]
        goes_on = np.zeros(len(segments), bool)  # it is not its request's first segment
        goes_on[1:] = request_id[1:] == request_id[:-1]
        next_token = segments.first_token + num_tokens
        out_of_order = ~goes_on & (segments.first_token != 1)
        out_of_order[1:] |= goes_on[1:] & (segments.first_token[1:] != next_token[:-1])
        out_of_order[1:] |= goes_on[1:] & (starts_s[1:] < ends_s[:-1])
        self._listed = np.zeros(num_requests, bool)
        self._listed[request_id[out_of_order]] = True

        self.num_out = np.bincount(request_id, num_tokens, num_requests).astype(np.int32)
        self.num_recomputed = np.zeros(num_requests, np.int32)
        self.first_s, self.second_s, self.last_s = (np.full(num_requests, np.nan) for _ in range(3))
        self.first_s[request_id[~goes_on]] = starts_s[~goes_on]
        self.last_s[request_id] = ends_s  # of several segments the last one stays
        seconds = np.flatnonzero(segments.first_token == 2)
        self.second_s[request_id[seconds]] = starts_s[seconds]
        longer = np.flatnonzero((segments.first_token == 1) & (num_tokens > 1))
        self.second_s[request_id[longer]] = step_end_s[first_step[longer] + 1]

        joined = np.flatnonzero(goes_on & ~self._listed[request_id])
        self._gap_s, self._gap_of = [starts_s[joined] - ends_s[joined - 1]], [request_id[joined]]
        self._list_tokens(num_tokens)

    def _list_tokens(self, num_tokens: np.ndarray) -> None:
        segments = self._segments
        listed = np.flatnonzero(self._listed)
        lows, highs = (np.searchsorted(segments.request_id, listed, side) for side in ("left", "right"))
        for request_id, low, high in zip(listed, lows, highs, strict=True):
            first_index = segments.first_token[low:high] - 1
            out_s = np.full((first_index + num_tokens[low:high]).max(), np.inf)
            for row, index in zip(range(low, high), first_index, strict=True):
                emitted_s = self._step_end_s[segments.first_step[row] : segments.last_step[row] + 1]
                known_s = out_s[index : index + len(emitted_s)]
                np.minimum(known_s, emitted_s, out=known_s)
            out_s[np.isinf(out_s)] = np.nan  # its machine died with the news
            self.num_out[request_id] = np.count_nonzero(~np.isnan(out_s))
            self.num_recomputed[request_id] = num_tokens[low:high].sum() - self.num_out[request_id]
            self.first_s[request_id] = out_s[0]
            self.second_s[request_id] = out_s[1] if len(out_s) > 1 else np.nan
            self.last_s[request_id] = np.nanmax(out_s)
            gaps_s = np.diff(out_s)
            gaps_s = gaps_s[~np.isnan(gaps_s)]
            self._gap_s.append(gaps_s)
            self._gap_of.append(np.full(len(gaps_s), request_id))

    def gaps(self, selected: np.ndarray, unit_s: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Every gap between consecutive tokens of each request in `selected` (bool, one entry a request).

        Returns (gap_s, weight): float64 gaps and how often each occurred (int32, >= 1). All requests in a batch have the gap
        of a step in common, so there are far fewer entries than tokens. With `unit_s` (one entry a request) gaps are multiples
        of their request's unit; one that several requests have in common, of the mean of their units.
        """
        segments, step_end_s = self._segments, self._step_end_s
        sliced = np.flatnonzero((selected & ~self._listed)[segments.request_id])
        # A segment has the gaps from the one before its second step to the one before its last step.
        first_step, last_step = segments.first_step[sliced] + 1, segments.last_step[sliced]
        weight = num_covering(first_step, last_step, len(step_end_s))
        if unit_s is not None:
            units_s = sum_covering(first_step, last_step, unit_s[segments.request_id[sliced]], len(step_end_s))
        del sliced, first_step, last_step  # there may be tens of millions of steps and segments: nothing is kept in vain
        shared = weight > 0
        gap_s = step_end_s.copy()
        gap_s[1:] -= step_end_s[:-1]
        gap_of = np.concatenate(self._gap_of)
        own = selected[gap_of]
        own_gap_s = np.concatenate(self._gap_s)[own]
        if unit_s is not None:
            gap_s *= weight
            np.divide(gap_s, units_s, out=gap_s, where=shared)
            own_gap_s /= unit_s[gap_of[own]]
            del units_s
        gap_s = gap_s[shared]
        weight = weight[shared]
        return np.concatenate([gap_s, own_gap_s]), np.concatenate([weight, np.ones(len(own_gap_s), weight.dtype)])


def num_covering(first_step: np.ndarray, last_step: np.ndarray, num_steps: int) -> np.ndarray:
    """How many of the stretches `first_step` to `last_step`, inclusive, each of `num_steps` steps lies in (int32)."""
    num = np.zeros(num_steps + 1, np.int32)
    one = num.dtype.type(1)  # of another type it is cast at every index, 40 times as slow
    np.add.at(num, first_step, one)
    np.subtract.at(num, last_step + 1, one)
    return np.cumsum(num, out=num)[:num_steps]


def sum_covering(first_step: np.ndarray, last_step: np.ndarray, amounts: np.ndarray, num_steps: int) -> np.ndarray:
    """As `num_covering`, with the sum of the `amounts` of these stretches (float64, to rounding)."""
    total = np.zeros(num_steps + 1)
    np.add.at(total, first_step, amounts)
    np.subtract.at(total, last_step + 1, amounts)
    return np.cumsum(total, out=total)[:num_steps]
