"""Hands the runs of a sweep to Hydra's launcher: one after the other, on all cores (joblib) or across a Ray cluster."""

import copy
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import cast

import psutil
from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, flag_override

from emu.hydra_private import Callbacks
from emu.results.sweep_table import FAILURE, finished_summary
from emu.runtime.errors import RunError
from emu.runtime.interrupt import Interrupt
from emu.sweeps.plan import PlannedRun, SweepPlan, is_basic
from emu.sweeps.run import STARTED, Rehearse, SweepRun, here, record_failure

# Of every BLAS that numpy may have: a worker has one core.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def launch(plan: SweepPlan, runs: Sequence[PlannedRun], rehearse: Rehearse) -> None:
    """Run `runs` of the plan. Each leaves its summary.json or failure.json in its directory.

    A worker that is killed (by the kernel, out of memory) takes joblib's other workers with it. Those whose runs were going
    on then run once more, each alone: one that dies again fails, and the rest go on. Raises RunError where the launcher fails.
    """
    task = SweepRun(rehearse, plan.hydra_overrides, plan.varying, here())
    with _ends_its_children():
        if is_basic(plan.hydra.hydra) and not plan.hydra.hydra.callbacks:
            before = Interrupt.num_requests
            for run in runs:  # as Hydra's launcher does, but that it copies the configuration six times, 15 ms
                task.run(plan.directory / str(run.number), run.overrides)
                if Interrupt.num_requests > before:
                    raise KeyboardInterrupt
        else:
            _launch_until_all_ended(plan, runs, task)


def _launch_until_all_ended(plan: SweepPlan, runs: Sequence[PlannedRun], task: SweepRun) -> None:
    launcher = _launcher(plan.hydra, task)
    if not is_basic(plan.hydra.hydra):
        for name in ONE_THREAD:
            os.environ.setdefault(name, "1")
    pending = list(runs)
    while pending:
        for run in pending:
            (plan.directory / str(run.number) / STARTED).unlink(missing_ok=True)
        try:
            _launch(launcher, pending)
            return
        except Exception as error:
            suspects = [run for run in pending if _was_going_on(plan, run)]
            if not suspects:
                raise RunError(f"hydra.launcher: {type(error).__name__}: {error}") from error
            _leave_ray()
            for run in suspects:
                _launch_alone(plan, launcher, run, error)
        pending = [run for run in pending if run not in suspects and not _has_ended(plan, run)]


def _launch(launcher: Launcher, runs: Sequence[PlannedRun]) -> None:
    launcher.launch([[str(run.number), *run.overrides] for run in runs], initial_job_idx=0)


def _launch_alone(plan: SweepPlan, launcher: Launcher, run: PlannedRun, first_error: Exception) -> None:
    try:
        _launch(launcher, [run])
    except Exception as error:
        _leave_ray()
        run_dir = plan.directory / str(run.number)
        what = str(error).split(".")[0].splitlines()[0]
        record_failure(run_dir, f"its process ended before the run did, twice: {what}", [str(first_error), str(error)])


def _has_ended(plan: SweepPlan, run: PlannedRun) -> bool:
    run_dir = plan.directory / str(run.number)
    return (run_dir / FAILURE).exists() or finished_summary(run_dir) is not None


def _was_going_on(plan: SweepPlan, run: PlannedRun) -> bool:
    return (plan.directory / str(run.number) / STARTED).exists() and not _has_ended(plan, run)


def _leave_ray() -> None:
    """End what still runs there: after an error Hydra's launcher waits for no other task, and they would run twice."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@contextmanager
def _ends_its_children() -> Iterator[None]:
    """Kills every process started in it where it is left by an exception. SIGTERM is one, with exit code 143."""

    def leave(*_) -> None:
        sys.exit(128 + signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, leave)
    earlier = psutil.Process().children(recursive=True)  # a caller's own, such as a Ray cluster that it has started
    try:
        yield
    except BaseException:
        for child in set(psutil.Process().children(recursive=True)).difference(earlier):
            with suppress(psutil.NoSuchProcess):
                if "resource_tracker" not in " ".join(child.cmdline()):  # joblib's, which cleans up when we have ended
                    child.kill()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


class _RunConfigs:
    """Stands for Hydra's `ConfigLoader`, of which launchers call this method: a run composes its configuration itself."""

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Hydra's node for the run whose number and overrides these are."""
        config = copy.deepcopy(master_config)
        with flag_override(config.hydra, ["struct", "readonly"], False):
            config.hydra.sweep.subdir, *config.hydra.overrides.task = sweep_overrides
        return config


class _Forgetful(Callback):
    """Drops the copies of the configuration that Hydra returns with each run, and launchers keep: a megabyte a run."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_) -> None:
        job_return.cfg = job_return.hydra_cfg = None


def _launcher(config: DictConfig, task: SweepRun) -> Launcher:
    slim = copy.deepcopy(config)
    with flag_override(slim, ["struct", "readonly"], False):
        slim.hydra.help.template = slim.hydra.hydra_help.template = ""  # every run would get them
        if "ray" in slim.hydra.launcher:  # else Hydra's launcher sets a size, which Ray refuses where it joins a cluster
            slim.hydra.launcher.ray.init.setdefault("object_store_memory", None)
            from emu.runtime.ray_start import require_token  # loads Ray

            require_token(slim.hydra.launcher.ray.init.get("address") or "")
    callbacks = Callbacks(config)
    callbacks.callbacks.append(_Forgetful())
    context = HydraContext(config_loader=cast(ConfigLoader, _RunConfigs()), callbacks=callbacks)  # all that a launcher asks
    return Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=slim)
