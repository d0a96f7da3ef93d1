import re
from types import SimpleNamespace

import numpy as np
import pytest

from emu.workload import memory
from emu.workload.arrivals import Arrivals
from emu.workload.memory import BYTES_PER_REQUEST, GenerationProgress, require_memory
from emu.workload.traces import window
from emu.workload.traces.read import read_trace
from emu.workload.workload import WorkloadError


@pytest.fixture
def room_for(monkeypatch):
    """Pretend that there is memory for so many requests."""

    def limit(num_requests):
        free = SimpleNamespace(available=num_requests * BYTES_PER_REQUEST)
        monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free)

    return limit


def test_more_requests_than_memory_holds_are_refused_before_any_is_made(room_for, monkeypatch):
    room_for(20_000_000)
    monkeypatch.setattr(Arrivals, "_unit_gaps", lambda *_: pytest.fail("it generated"))
    text = (
        "workload.rate_rps=1e+06 for workload.duration_s=30: 30,000,000 requests need about 33.5 GiB of memory, of which "
        "22.4 GiB are free; expected a lower rate or a shorter duration"
    )
    with pytest.raises(WorkloadError, match=f"^{re.escape(text)}$"):
        Arrivals(1e6, 30, "poisson", 1).times_s(seed=0)


def test_what_fits_is_not_refused(room_for):
    room_for(1000)
    require_memory("key", 1000, "less")
    assert len(Arrivals(10, 30, "constant", 1).times_s(seed=0)) == 300


def test_a_window_larger_than_memory_is_refused_while_it_is_read(room_for, monkeypatch, tmp_path):
    monkeypatch.setattr(window, "MANY_REQUESTS", 100)
    room_for(250)
    path = tmp_path / "t.csv"
    path.write_text("arrival_timestamp,prompt_size,token_size\n" + "".join(f"{row},1,1\n" for row in range(1000)))
    with pytest.raises(WorkloadError, match=r": 300 requests need about .*; expected a shorter workload\.duration_s$"):
        read_trace(path)
    assert len(read_trace(path, window.Window(0, 200)).arrival_s) == 200


def test_many_requests_are_announced(capsys):
    assert len(Arrivals(1.5e6, 1, "constant", 1).times_s(seed=0)) == 1_500_000
    assert capsys.readouterr().err == "generating about 1,500,000 requests\n"


def test_progress_is_due_once_an_interval():
    assert not GenerationProgress(interval_s=1000).is_due()
    always = GenerationProgress(interval_s=0)
    assert [always.is_due(), always.is_due()] == [True, True]


def test_reading_says_how_far_it_is(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("emu.workload.traces.read.GenerationProgress", lambda: GenerationProgress(interval_s=0))
    path = tmp_path / "t.csv"
    path.write_text("arrival_timestamp,prompt_size,token_size\n0,1,1\n")
    np.testing.assert_array_equal(read_trace(path).arrival_s, [0])
    assert capsys.readouterr().err == f"reading {path}: 2 lines, 100% of the file\n"
