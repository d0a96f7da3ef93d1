"""What keeps a run on Ray from starting is one line, found before Ray, a run directory or a calibration is begun."""

import socket
import threading
from contextlib import contextmanager

import pytest
import ray

from emu.build import build, compose
from emu.config_error import ConfigError
from emu.execution.calibration import host
from emu.extras import missing_extra
from emu.runtime import ray_address, ray_nodes
from emu.runtime.errors import RunError

SHORT = ("workload=fixed", "workload.duration_s=1")
EXPECTED = "expected HOST:PORT of a running Ray cluster, as `ray start --head` prints it, or '' to start one here"


def refused(*overrides):
    with pytest.raises(ConfigError) as caught:
        build(compose([*SHORT, *overrides]))
    return str(caught.value)


@contextmanager
def listener(answer):
    """The address of a server that accepts one connection and sends `answer`; where that is None, nothing and no end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted = []

        def serve():
            accepted.append(server.accept()[0])
            if answer is not None:
                accepted[0].sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        for connection in accepted:
            connection.close()


@pytest.mark.parametrize("address", ["auto", "local", "ray://127.0.0.1:10001", "127.0.0.1", ":6379", "h:0", "h:65536", "a b:1"])
def test_an_address_is_a_host_and_a_port(address):
    assert refused(f"runtime.address='{address}'") == f"runtime.address={address}: {EXPECTED}"


def test_a_cluster_that_is_gone(monkeypatch):
    monkeypatch.setattr(ray_nodes.ray, "is_initialized", lambda: False)  # another test may have joined one
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    line = f"{address}: no Ray cluster answers there (Connection refused); {EXPECTED}"
    assert refused(f"runtime.address={address}") == f"runtime.address={line}"
    with pytest.raises(RunError) as caught, ray_nodes.ray_nodes(address, 1, 80_000_000):
        pass
    assert str(caught.value) == f"--address={line}"


@pytest.mark.parametrize(
    ("answer", "problem"), [(None, "no answer"), (b"HTTP/1.1 400 Bad Request", "what listens there is no Ray cluster")]
)
def test_a_server_that_is_no_cluster(monkeypatch, answer, problem):
    monkeypatch.setattr(ray_address, "CONNECT_S", 0.2)
    with listener(answer) as address:
        expected = f"runtime.address={address}: no Ray cluster answers there ({problem}); {EXPECTED}"
        assert refused(f"runtime.address={address}") == expected


def test_a_look_up_that_takes_for_ever(monkeypatch):
    monkeypatch.setattr(ray_address, "LIMIT_S", 0.05)
    monkeypatch.setattr(socket, "create_connection", lambda *_: threading.Event().wait())
    assert refused("runtime.address=h:1") == f"runtime.address=h:1: no Ray cluster answers there (no answer); {EXPECTED}"


def test_a_server_that_speaks_as_ray_does():
    with listener(bytes(3) + b"\x04" + bytes(5)) as address:
        assert build(compose([*SHORT, f"runtime.address={address}"])).runtime.address == address


def test_more_machines_than_this_host_has_memory_for(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_nodes, "estimate_available_memory", lambda: 2_049_999_999)
    assert refused("cluster.num_prompt=5", "cluster.num_token=2") == (
        "runtime.actor_memory_bytes=150000000: 7 machines and the scheduler do not fit this host, which has 1.05 GB of memory "
        "left beside runtime.object_store_bytes=1000000000; expected at most 5 machines, or less for each of them"
    )
    build(compose([*SHORT, "cluster.num_prompt=3", "cluster.num_token=2"]))
    build(compose([*SHORT, "cluster.num_prompt=5", "cluster.num_token=2", "runtime=virtual"]))


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["runtime=virtual"], "execution=torch needs runtime=ray, not virtual: a machine that executes takes wall time"),
        (["execution.machines=[p9]"], "execution.machines=p9: expected one of p0, p1, d0, d1"),
        (["faults=[{machine: x, at_s: 1}]"], "faults[0].machine=x: no such machine; there are p0, p1, d0, d1"),
        (["runtime.address=auto"], f"runtime.address=auto: {EXPECTED}"),
    ],
)
def test_nothing_is_calibrated_or_installed_for_what_is_refused(monkeypatch, overrides, line):
    monkeypatch.setattr(host, "_calibrate", lambda job, path: pytest.fail("calibrated"))
    monkeypatch.setattr("emu.execution.settings.find_spec", lambda name: None if name == "torch" else name)
    assert missing_extra(["experiment=mixed", *overrides]) == ""
    assert missing_extra(["experiment=mixed"]) == "torch"
    monkeypatch.undo()
    monkeypatch.setattr(host, "_calibrate", lambda job, path: pytest.fail("calibrated"))
    with pytest.raises(ConfigError) as caught:
        build(compose(["experiment=mixed", *overrides]))
    assert str(caught.value) == line
