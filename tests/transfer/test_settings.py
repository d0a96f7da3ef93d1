"""Transfer settings that cannot be used are refused in one line, before anything starts."""

import pytest

from emu.build import build, compose
from emu.config_error import ConfigError
from emu.core.setting import SettingError
from emu.extras import missing_extra
from emu.install import install_command
from emu.transfer import settings as transfer_settings
from emu.transfer.settings import TransferError
from tests.transfer.settings import settings_named

NAMES = ("object_store", "gloo", "nccl", "nixl", "cuda_ipc")


@pytest.mark.parametrize("name", NAMES)
def test_a_transport_is_called_what_selects_it(name):
    assert settings_named(name).name == name


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"max_message_bytes": 5000}, "transfer.max_message_bytes=5000: expected whole pages of 4096"),
        ({"max_message_bytes": 0}, "transfer.max_message_bytes=0: expected a whole number from 4096 to 1073741824"),
        ({"min_message_bytes": 1 << 23}, "transfer.min_message_bytes=8388608: expected a whole number from 1 to 4194304"),
        ({"num_buffers": 0}, "transfer.num_buffers=0: expected a whole number from 1 to 1024"),
        ({"timeout_s": 0}, "transfer.timeout_s=0: expected a number > 0"),
        ({"max_tries": 0}, "transfer.max_tries=0: expected a whole number from 1 to 100"),
        ({"layers_per_piece": 0}, "transfer.layers_per_piece=0: expected a whole number from 1 to 2147483647"),
    ],
)
def test_what_cannot_be_is_refused(changes, line):
    with pytest.raises((TransferError, SettingError)) as refused:
        settings_named(**changes)
    assert str(refused.value) == line


@pytest.mark.parametrize(
    ("name", "changes", "line"),
    [
        ("gloo", {"backend": "mpi"}, "transfer.backend=mpi: expected one of gloo, nccl"),
        ("nixl", {"device": "tpu"}, "transfer.device=tpu: expected one of cpu, cuda"),
        ("nixl", {"descriptor_bytes": 8}, "transfer.descriptor_bytes=8: expected a whole number from 64 to 1073741824"),
    ],
)
def test_what_a_transport_has_of_its_own_is_checked_too(name, changes, line):
    with pytest.raises((TransferError, SettingError)) as refused:
        settings_named(name, **changes)
    assert str(refused.value) == line


@pytest.mark.parametrize(("name", "module"), [("gloo", "torch"), ("nixl", "nixl_cu13 or nixl_cu12"), ("cuda_ipc", "torch")])
def test_nothing_starts_without_what_moves_its_payloads(name, module, monkeypatch):
    monkeypatch.setattr(transfer_settings, "find_spec", lambda module: None)
    overrides = [f"transfer={name}", "workload=fixed", "workload.duration_s=1"]
    with pytest.raises(ConfigError) as refused:
        build(compose(overrides))
    extra = "nixl" if name == "nixl" else "torch"
    assert missing_extra(["-q", *overrides]) == missing_extra(["-m", *overrides, "seed=1,2"]) == extra
    assert missing_extra([*overrides, "runtime=virtual"]) == missing_extra([*overrides, "seed=-1"]) == ""
    assert str(refused.value) == (
        f"transfer={name} needs {module}, which is not installed; {install_command(extra)}, or choose another transfer"
    )


@pytest.mark.parametrize(
    ("overrides", "num_gpus", "line"),
    [
        (["transfer=nccl"], 0, "transfer=nccl needs a GPU, which this host has not; choose another transfer"),
        (
            ["transfer=nccl"],
            5,
            "transfer=nccl needs a GPU for each of the 6 machines, and this host has 5; choose another transfer",
        ),
        (["transfer=cuda_ipc"], 0, "transfer=cuda_ipc needs a GPU, which this host has not; choose another transfer"),
        (["transfer=nixl", "transfer.device=cuda"], 0, "transfer.device=cuda: this host has no GPU; expected cpu"),
    ],
)
def test_nothing_starts_without_the_gpus_it_needs(overrides, num_gpus, line, monkeypatch):
    monkeypatch.setattr(transfer_settings, "find_spec", lambda module: True)
    monkeypatch.setattr(transfer_settings, "_num_gpus", lambda: num_gpus)
    short = ["workload=fixed", "workload.duration_s=1"]
    with pytest.raises(ConfigError) as refused:
        build(compose([*overrides, *short]))
    assert str(refused.value) == line
    build(compose([*overrides, *short, "runtime=virtual"]))
    monkeypatch.setattr(transfer_settings, "_num_gpus", lambda: 6)
    build(compose([*overrides, *short]))


def test_under_the_virtual_clock_nothing_is_needed(monkeypatch, tmp_path):
    monkeypatch.setattr(transfer_settings, "find_spec", lambda module: None)
    plan = build(compose(["transfer=nixl", "runtime=virtual", "workload=fixed", "workload.duration_s=1"]))
    record = plan.run(run_dir=tmp_path, log_events=False)
    assert len(record.recorder.columns().transfers) > 0
