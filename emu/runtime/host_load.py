"""How many cores other processes took from the run: a loaded host is seen here before it shows as lateness."""

import time

import psutil

_RAY_PROCESSES = {"raylet", "gcs_server"}


class HostLoad:
    """Busy time of this host against the CPU time of this process, its children and Ray's processes, since construction.

    Stolen time counts as busy: it was wanted and not had. Call `sample` every second or two, so that the time of processes
    that end meanwhile is not taken for others'.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._busy_s = _busy_s()
        self._first = self._own_cpu_s()
        self._last = dict(self._first)

    def sample(self) -> None:
        self._last.update(self._own_cpu_s())

    def own_cores(self) -> float:
        """Cores used by the run and by Ray, on average since construction."""
        self.sample()
        own_s = sum(cpu_s - self._first.get(pid, 0.0) for pid, cpu_s in self._last.items())
        return own_s / (time.monotonic() - self._started)

    def foreign_cores(self) -> float:
        """Cores used by others, on average since construction."""
        own_cores = self.own_cores()
        return max(0.0, (_busy_s() - self._busy_s) / (time.monotonic() - self._started) - own_cores)

    @staticmethod
    def _own_cpu_s() -> dict[int, float]:
        roots = [psutil.Process()]
        roots += [process for process in psutil.process_iter(["name"]) if process.info["name"] in _RAY_PROCESSES]
        own_cpu_s = {}
        for root in roots:
            try:
                for process in (root, *root.children(recursive=True)):
                    times = process.cpu_times()
                    own_cpu_s[process.pid] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        return own_cpu_s


def _busy_s() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
