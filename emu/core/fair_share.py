"""Links shared max-min fairly: no flow could have more without another, that has no more than it, having less."""

from collections.abc import Iterable, Mapping, Sequence


def max_min_rates(paths: Sequence[Iterable[int]], demands: Sequence[float], capacity: Mapping[int, float]) -> list[float]:
    """The rate of each flow, which goes over the links `paths[i]` and wants at most `demands[i]` bytes/s (0 to inf).

    Progressive filling (Bertsekas and Gallager, Data Networks, §6.5.2): all rates rise together; a flow stops at its demand,
    and all flows of a link stop when it is full. `capacity`, in bytes/s, has every link of every path.
    """
    rates = [0.0] * len(paths)
    left = dict(capacity)
    num_rising = dict.fromkeys(capacity, 0)
    for path in paths:
        for link in path:
            num_rising[link] += 1
    rising = list(range(len(paths)))
    while rising:
        levels = {link: left[link] / number for link, number in num_rising.items() if number}
        level = min(levels.values())
        stopping = [flow for flow in rising if demands[flow] <= level]
        if not stopping:
            full = {link for link, at in levels.items() if at == level}
            stopping = [flow for flow in rising if not full.isdisjoint(paths[flow])]
        stopped = set(stopping)
        rising = [flow for flow in rising if flow not in stopped]
        for flow in stopping:
            rates[flow] = rate = min(level, demands[flow])
            for link in paths[flow]:
                left[link] -= rate
                num_rising[link] -= 1
    return rates
