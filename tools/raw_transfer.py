"""The plain library call beneath each transport, at its best, between the two actors that bench_transfer.py measures.

Buffers are of the size of the largest call: allocated, touched and registered once, and reused. The bytes in them are not
filled for a call, and nobody verifies them. Both ends are on one host and read one monotonic clock; everything blocks.
"""

import importlib
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import ObjectRef

from emu.transfer.buffers import Buffers
from emu.transfer.settings import NixlSettings

SOURCE, DESTINATION = 0, 1
GROUP_S = 60.0  # how long the plain gloo group waits for anything
Call = Callable[..., ObjectRef]  # role, method of its RawEnd, arguments


def _touched(num_bytes: int) -> np.ndarray:
    buffers = Buffers(1, num_bytes)
    buffers.touch(num_bytes)
    return buffers.memory


class RawEnd(ABC):
    """One of the two ends, with a buffer of `num_bytes`. Its methods are called in its actor, all but `seconds`."""

    def __init__(self, role: int, num_bytes: int, meeting_place: str) -> None:
        self.role = role
        self.memory = _touched(num_bytes)

    def open(self) -> Any:
        """What the other end needs to `connect`, if anything."""
        return None

    def connect(self, address: Any) -> None:  # noqa: B027 - most are by now
        """Both ends are open."""

    @classmethod
    @abstractmethod
    def seconds(cls, call: Call, num_bytes: int) -> float:
        """Move so many bytes once; returns how long it took."""


class RawObjectStore(RawEnd):
    """`ray.put` in one actor and `ray.get` in the other; without the time in which the reference gets there."""

    def put(self, num_bytes: int) -> tuple[float, ObjectRef]:
        start_s = time.monotonic()
        reference = ray.put(self.memory[:num_bytes])
        return time.monotonic() - start_s, reference

    def get(self, reference: list[ObjectRef]) -> float:
        start_s = time.monotonic()
        ray.get(reference[0])
        return time.monotonic() - start_s

    @classmethod
    def seconds(cls, call: Call, num_bytes: int) -> float:
        put_s, reference = ray.get(call(SOURCE, "put", num_bytes))
        return put_s + ray.get(call(DESTINATION, "get", [reference]))


class RawGloo(RawEnd):
    """One send and one receive of the whole tensor, which waits for it; from the call to send until all of it is there."""

    def __init__(self, role: int, num_bytes: int, meeting_place: str) -> None:
        import torch
        from torch.distributed import FileStore

        from emu.transfer.torch_backends import Gloo

        super().__init__(role, num_bytes, meeting_place)
        self._tensor, self._go = torch.from_numpy(self.memory), torch.zeros(1, dtype=torch.uint8)
        self._group = Gloo("127.0.0.1", GROUP_S).make_group(FileStore(meeting_place, 2), role)

    def send(self, num_bytes: int) -> float:
        self._group.recv([self._go], DESTINATION, 0).wait()
        start_s = time.monotonic()
        self._group.send([self._tensor[:num_bytes]], DESTINATION, 1).wait()
        return start_s

    def receive(self, num_bytes: int) -> float:
        receiving = self._group.recv([self._tensor[:num_bytes]], SOURCE, 1)
        self._group.send([self._go], SOURCE, 0).wait()
        receiving.wait()
        return time.monotonic()

    @classmethod
    def seconds(cls, call: Call, num_bytes: int) -> float:
        start_s, end_s = ray.get([call(SOURCE, "send", num_bytes), call(DESTINATION, "receive", num_bytes)])
        return end_s - start_s


class RawNixl(RawEnd):
    """One WRITE of the whole registered buffer by UCX, in one descriptor made before, from posting it until it is done.

    Both ends poll without a pause while it lasts. A thread of NIXL's own would poll at other times too, in the way of what is
    compared with this.
    """

    def __init__(self, role: int, num_bytes: int, meeting_place: str) -> None:
        super().__init__(role, num_bytes, meeting_place)
        os.environ.setdefault("NIXL_LOG_LEVEL", "ERROR")
        api = importlib.import_module(next(module for module in NixlSettings.modules if find_spec(module)))
        config = api.nixl_agent_config(enable_prog_thread=False, backends=["UCX"])
        self._agent = api.nixl_agent(f"raw-{role}-{os.getpid()}", config)
        self._registered = self._agent.register_memory([(self.memory.ctypes.data, num_bytes, 0, "")], "DRAM")
        self._handles: dict[int, Any] = {}

    def open(self) -> tuple[bytes, int]:
        return self._agent.get_agent_metadata(), self.memory.ctypes.data

    def connect(self, address: tuple[bytes, int]) -> None:
        metadata, self._theirs = address
        self._peer = self._agent.add_remote_agent(metadata)

    def write(self, num_bytes: int) -> float:
        if num_bytes not in self._handles:
            places = (self.memory.ctypes.data, self._theirs)
            ours, theirs = (self._agent.get_xfer_descs([(place, num_bytes, 0)], "DRAM") for place in places)
            self._handles[num_bytes] = self._agent.initialize_xfer("WRITE", ours, theirs, self._peer, b"written")
        handle, start_s = self._handles[num_bytes], time.monotonic()
        state = self._agent.transfer(handle)
        while state == "PROC":
            state = self._agent.check_xfer_state(handle)
        if state != "DONE":
            raise RuntimeError(f"NIXL could not write {num_bytes} bytes: {state}")
        return time.monotonic() - start_s

    def until_written(self) -> None:
        while not any(self._agent.get_new_notifs().values()):
            pass

    @classmethod
    def seconds(cls, call: Call, num_bytes: int) -> float:
        polled = call(DESTINATION, "until_written")  # small ones need it to poll: it begins first
        return ray.get([call(SOURCE, "write", num_bytes), polled])[0]


RAW: dict[str, type[RawEnd]] = {"object_store": RawObjectStore, "gloo": RawGloo, "nixl": RawNixl}


class RawPair:
    """Both ends, made by calls of `raw_open` and `raw` of the two actors, whose methods `start` calls as TransferMesh does."""

    def __init__(self, kind: type[RawEnd], start: Callable[..., ObjectRef], num_bytes: int) -> None:
        self._kind, self._start = kind, start
        with tempfile.TemporaryDirectory() as folder:
            place = str(Path(folder) / "store")
            addresses = ray.get([start(role, "raw_open", kind, role, num_bytes, place) for role in (SOURCE, DESTINATION)])
            ray.get([self.call(role, "connect", addresses[1 - role]) for role in (SOURCE, DESTINATION)])

    def call(self, role: int, method: str, *arguments: Any) -> ObjectRef:
        return self._start(role, "raw", method, *arguments)

    def seconds(self, num_bytes: int) -> float:
        return self._kind.seconds(self.call, num_bytes)


class Memcpy:
    """A copy between two buffers of this process, touched before."""

    def __init__(self, num_bytes: int) -> None:
        self._from, self._to = _touched(num_bytes), _touched(num_bytes)

    def seconds(self, num_bytes: int) -> float:
        start_s = time.monotonic()
        np.copyto(self._to[:num_bytes], self._from[:num_bytes])
        return time.monotonic() - start_s
