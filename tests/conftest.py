"""Where the data is, and how the whole suite is spread over processes (pytest-xdist)."""

import os
import signal
import sys
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).parents[1]


def pytest_configure() -> None:
    """Give the processes that tests start an environment of their own, whatever this one was started with.

    A shell starts what it puts into the background with Ctrl-C ignored, and tools/test has Python import nothing from the
    working directory. Bytecode is kept: the tests start hundreds of processes of the same sources.
    """
    for name in ("PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    sys.dont_write_bytecode = False
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Four for the whole suite, for two cores: rehearsals on the wall clock mostly wait.

    None for a part of it, which is done sooner, and shown in order, in this process.
    """
    asked = {(config.invocation_params.dir / argument).resolve() for argument in config.args}
    is_whole = bool(asked & {ROOT, ROOT / "tests"}) and not config.option.keyword
    return 4 if is_whole else 0


class ByFile(LoadFileScheduling):
    """A file's tests share a process, and so its fixtures. Those that need Ray share two: each would start a cluster."""

    def _split_scope(self, nodeid: str) -> str:
        path = super()._split_scope(nodeid)
        return f"ray {'runtime' in path}" if needs_ray(path) else path


@cache
def needs_ray(path: str) -> bool:
    return "two_nodes" in (ROOT / path).read_text()


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have what takes longest first, so that no process is left with it at the end."""

    def takes_long(item: pytest.Item) -> int:
        if item.path.name == "test_readme.py":
            return 3
        return (item.get_closest_marker("slow") is not None) + ("two_nodes" in item.fixturenames)

    if hasattr(config, "workerinput"):
        items.sort(key=takes_long, reverse=True)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real traces; tests that need it skip where it is not there."""
    folder = Path(os.environ.get("EMU_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "azure_llm_2023").is_dir():
        pytest.skip(f"no real traces in {folder}; set EMU_DATA")
    return folder


@pytest.fixture(scope="session")
def two_nodes():
    """A Ray cluster of two nodes on this host, with small stores: node crossings are always tested. This process has joined it.

    One for the whole test run.
    """
    import ray
    from ray.cluster_utils import Cluster

    from emu.runtime.ray_start import require_token

    require_token()
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    node = {"num_cpus": 1, "memory": 4 << 30, "object_store_memory": 256 << 20}
    unused = {"include_dashboard": False, "include_log_monitor": False}
    cluster = Cluster(initialize_head=True, head_node_args={**node, **unused})
    cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()
