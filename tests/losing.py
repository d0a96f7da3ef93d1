"""Clusters whose links lose KV caches: what a runtime says when a transfer has been tried again too often."""

import random
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

from emu.core.cluster import Cluster
from emu.core.messages import FlowRequested, KVLost, Send, SetFlowEnd, SetTimer
from emu.core.network import Network

CAUSE = "no piece came"
TOLD_AFTER_S = (0.0, 0.001, 0.05, 0.3, 3.0)


class Loss(NamedTuple):
    """The destination is told `after_s` after its flow was asked for. Where the loss is not `for_good`, the KV cache comes all
    the same: whichever of the two is first counts."""

    after_s: float
    for_good: bool = True


Losses = Callable[[int, int], Loss | None]  # of a request's attempt


class LosingNetwork:
    """A network of which `losses` says what it loses. Its word takes the way of every message."""

    def __init__(self, network: Network, losses: Losses) -> None:
        self._network = network
        self._losses = losses
        self._destinations: dict[tuple[int, int], int] = {}
        self._for_good: set[tuple[int, int]] = set()
        self.rates = network.rates

    def handle(self, event: tuple, now_s: float) -> list[tuple]:
        if type(event) is KVLost:
            return [Send(self._destinations[event[:2]], event)]
        actions = self._network.handle(event, now_s)
        if type(event) is FlowRequested:
            key = event[:2]
            if (loss := self._losses(*key)) is not None:
                self._destinations[key] = event.destination
                if loss.for_good:
                    self._for_good.add(key)
                actions.append(SetTimer(now_s + loss.after_s, KVLost(*key, CAUSE)))
        return [action for action in actions if not (type(action) is SetFlowEnd and action[:2] in self._for_good)]


@dataclass(frozen=True, slots=True)
class LosingCluster(Cluster):
    losses: Losses = lambda request_id, attempt: None

    def make_network(self) -> LosingNetwork:
        return LosingNetwork(Cluster.make_network(self), self.losses)


def losing(cluster: Cluster, losses: Losses) -> LosingCluster:
    """The same cluster with links that lose what `losses` says."""
    return LosingCluster(*[getattr(cluster, field.name) for field in fields(cluster)], losses)


def at_random(seed: int, share: float) -> Losses:
    """Loses a share of all transfers, told soon or late; one in four of these is not lost at all."""

    def losses(request_id: int, attempt: int) -> Loss | None:
        draw = random.Random(f"{seed} {request_id} {attempt}")
        return Loss(draw.choice(TOLD_AFTER_S), draw.random() < 0.75) if draw.random() < share else None

    return losses
