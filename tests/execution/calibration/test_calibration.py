"""Real calibrations of a very small model on the CPU, from the engine to the file; whatever its steps take."""

import asyncio
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from emu.build import build, compose, plain
from emu.core.specs import ModelSpec
from emu.execution.calibration.job import Effort, Job
from emu.execution.calibration.step_shape import StepShape
from emu.execution.model import random_model
from tests.tiny_checkpoints import CONFIG

torch = pytest.importorskip("torch")
from emu.execution.calibration.calibration import calibrate  # noqa: E402
from emu.execution.calibration.measurements import CalibrationError, MeasurementFile  # noqa: E402
from emu.execution.calibration.profiler import Profiler  # noqa: E402
from emu.execution.calibration.timing_file import write_timing  # noqa: E402
from emu.execution.torch_engine.engine import EngineError, load_engine  # noqa: E402

MODEL = random_model("tiny", "fp32", CONFIG)
EFFORT = Effort(True, 2, 0.001, 0.0, 5.0)
JOB = Job(MODEL, "cpu_core", "cpu", 1, max_kv_blocks=200, block_tokens=16, num_beside=1, effort=EFFORT)


def silent(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder with a calibration, and what was found."""
    folder = tmp_path_factory.mktemp("calibration")
    return folder, write_timing(JOB, folder / "tiny.yaml", folder / "tiny.jsonl", "emu calibrate ...", silent)


def test_the_file_is_a_timing_of_the_model_on_the_hardware(written):
    folder, calibration = written
    config = plain(compose(["cluster=splitwise_hh", "runtime=virtual", "workload=fixed", "workload.duration_s=1"]))
    config["timing"] = OmegaConf.to_container(OmegaConf.load(folder / "tiny.yaml"))
    config["model"] = OmegaConf.to_container(OmegaConf.create({
        "_target_": "emu.execution.model.random_model", "name": "tiny", "dtype": "fp32", "config": CONFIG,
    }))  # fmt: skip
    for role in ("prompt", "token"):
        config["cluster"][f"{role}_hardware"] = plain(compose(["hardware@slo.reference=cpu_core"]))["slo"]["reference"]
    timing = build(config).run_config.cluster.machines[0].timing
    figures = calibration.figures
    assert timing.decode_s(1, 0) == pytest.approx(figures["decode_s"][0], rel=1e-4)
    assert timing.relative_error([], 1, 10) == pytest.approx(figures["decode_error"][0], rel=1e-4)
    assert timing.probe_s("prefill") == pytest.approx(figures["probe_prefill_s"], rel=1e-4)
    assert timing.probe_s("decode") == pytest.approx(figures["probe_decode_s"], rel=1e-4)
    last = figures["pass_tokens"][-1]
    assert timing.extrapolates([last + 1], 0, 0) and not timing.extrapolates([last], 0, 0)


def test_it_says_what_it_is_of_and_how_far_it_holds(written):
    folder, calibration = written
    text = (folder / "tiny.yaml").read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    for expected in (
        "tiny (fp32) on hardware cpu_core",
        "device cpu, 1 thread",
        f"torch {torch.__version__.partition('+')[0]}",
        "emu calibrate ...",
        f"passes with prompts of 1 to {calibration.figures['pass_tokens'][-1]} tokens",
        "Error: the 95th percentile",
        "between two steps:",
        "the host: in nine tenths of the time prefills took",
        f"KV capacity: {calibration.num_kv_blocks:,} blocks",
        "power: not measured",
    ):
        assert any(expected in line for line in comments), expected
    assert {region.phase for region in calibration.regions} == {"prefill", "decode", "mixed"}
    assert all(f"{region.error:.1%}" in text for region in calibration.regions)


def test_it_has_all_rounds_of_all_shapes(written):
    folder, calibration = written
    lines = (folder / "tiny.jsonl").read_text().splitlines()
    assert len(lines) - 1 == 2 * calibration.num_shapes
    assert not (folder / "tiny.unfinished.jsonl").exists()
    assert calibration.num_kv_blocks > 200 and calibration.overhead_s > 0


class Stopped(Exception):
    pass


def test_a_calibration_that_was_stopped_goes_on(tmp_path, written):
    path, calls = tmp_path / "m.jsonl", []

    def stop(text):
        calls.append(text)
        if "round 2" in text:
            raise Stopped

    with pytest.raises(Stopped):
        calibrate(JOB, path, stop)
    num_done = len(path.read_text().splitlines()) - 1
    assert num_done == written[1].num_shapes
    before = path.read_text()
    calls.clear()
    calibrate(JOB, path, calls.append)
    assert path.read_text().startswith(before)
    assert len(path.read_text().splitlines()) - 1 == 2 * num_done
    assert not any("round 1" in call for call in calls)


def test_measurements_of_another_model_are_not_gone_on_with(tmp_path):
    path = tmp_path / "m.jsonl"
    MeasurementFile(path, {"model": "other"})
    with pytest.raises(CalibrationError, match="something else"):
        calibrate(JOB, path, silent)


def test_a_device_that_is_not_there_and_a_model_that_does_not_fit_are_one_line(tmp_path):
    with pytest.raises(EngineError, match="device=cuda:99: expected"):
        calibrate(replace(JOB, device="cuda:99"), tmp_path / "m.jsonl", silent)
    huge = random_model("huge", "fp32", {**CONFIG, "hidden_size": 1 << 20, "intermediate_size": 1 << 20})
    with pytest.raises(EngineError, match="does not fit"):
        calibrate(replace(JOB, model=huge), tmp_path / "m.jsonl", silent)


def test_where_nothing_is_fast_enough_it_says_so(tmp_path):
    with pytest.raises(CalibrationError, match=r"model tiny on cpu: no step takes less than 1e-09 s"):
        calibrate(replace(JOB, effort=Effort(True, 1, 0.001, 0.0, 1e-9)), tmp_path / "m.jsonl", silent)


class Recorder:
    """An engine that notes what it is asked for."""

    def __init__(self, engine):
        self.cache, self.architecture, self.device = engine.cache, engine.architecture, engine.device
        self.steps = []

    def step(self, chunks, on_layer=None):
        self.steps.append([(len(chunk.token_ids), chunk.num_before) for chunk in chunks])


async def recorded(shape: StepShape, num_steps: int) -> list[list[tuple[int, int]]]:
    engine = Recorder(load_engine(MODEL.executable, num_blocks=40, block_tokens=16, device="cpu", num_threads=1))
    profiler = Profiler(engine, JOB.effort)
    times = await profiler.steps(shape, num_steps)
    profiler.close()
    assert len(times) == num_steps
    assert engine.cache.num_free_blocks == 40  # all given back
    return engine.steps


async def test_the_engine_is_asked_for_the_shape_and_decodes_grow_to_it():
    assert await recorded(StepShape(((5, 0), (3, 20))), 2) == [[(5, 0), (3, 20)]] * 2
    assert await recorded(StepShape((), (16, 40)), 3) == [[(1, before), (1, before + 24)] for before in (13, 14, 15)]
    assert await recorded(StepShape(((5, 0),), (2,)), 3) == [[(5, 0), (1, before)] for before in (0, 1, 2)]


async def test_an_error_of_the_engine_comes_out():
    engine = load_engine(MODEL.executable, num_blocks=40, block_tokens=16, device="cpu", num_threads=1)
    profiler = Profiler(engine, JOB.effort)
    with pytest.raises(EngineError, match="context"):
        await asyncio.wait_for(profiler.steps(StepShape(((300, 0),)), 1), 20)
    profiler.close()


def test_the_job_knows_no_torch():
    assert isinstance(MODEL, ModelSpec)
    assert replace(JOB, device="cuda:1").max_context > JOB.max_context
