"""How many cores other processes took from the run: a loaded host is seen here before it shows as lateness."""

import time

import psutil

_RAY_PROCESSES = {"raylet", "gcs_server"}


class HostLoad:
    """Busy time of this host against the CPU time of this process, its children and Ray's processes, since construction.

    Stolen time counts as busy: it was wanted and not had. `sample` now and then, so that the time of processes which end
    meanwhile is not taken for others'; it reads those known since the start, because looking for new ones among all
    processes takes long enough to make a machine late.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._busy_s = _busy_s()
        self._own = _own_processes()
        self._first = {pid: _cpu_s(process) for pid, process in self._own.items()}
        self._last = dict(self._first)

    def sample(self) -> None:
        for pid, process in self._own.items():
            # The time of one that has ended stays what it last was.
            self._last[pid] = _cpu_s(process) or self._last.get(pid, 0.0)

    def cores(self) -> tuple[float, float]:
        """Cores used by the run and Ray, and by others, on average since construction."""
        self._own |= _own_processes()
        self.sample()
        own_s = sum(cpu_s - self._first.get(pid, 0.0) for pid, cpu_s in self._last.items())
        busy_s, elapsed_s = _busy_s() - self._busy_s, time.monotonic() - self._started
        return own_s / elapsed_s, max(0.0, busy_s - own_s) / elapsed_s


def _own_processes() -> dict[int, psutil.Process]:
    roots = [psutil.Process()]
    roots += [process for process in psutil.process_iter(["name"]) if process.info["name"] in _RAY_PROCESSES]
    own: dict[int, psutil.Process] = {}
    for root in roots:
        try:
            own |= {process.pid: process for process in (root, *root.children(recursive=True))}
        except psutil.NoSuchProcess:
            continue
    return own


def _cpu_s(process: psutil.Process) -> float:
    """User and system seconds of a process; 0 once it has ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def _busy_s() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
