"""The compatible mode: the published simulator's results and worked example (SPLITWISE.md §9), and what holds in every run."""

import csv
import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emu.build import build, compose
from emu.compat.splitwise_sim.machine import SplitwiseSimMachine
from emu.config_error import ConfigError
from emu.core.messages import FlowRequested
from emu.core.oracle import OutputOracle
from emu.core.pools import Pool
from emu.results.columns import FAILED, FINISHED, Columns
from emu.results.event_log import pack_record
from emu.results.invariants import Ended, violations
from emu.results.ledger import handover_ledger
from emu.results.recorder import Recorder
from emu.results.saturation import is_saturated
from emu.runtime.fault import Fault
from emu.runtime.virtual import VirtualRuntime
from tests.clusters import Run, assert_same_tables, make_workload
from tests.losing import at_random, losing

TOOLS = Path(__file__).parents[2] / "tools"
RUNS = [
    *("bloom_conv70_baseH40", "bloom_conv70_HH25P15T", "bloom_code70_baseH40", "bloom_code70_HH35P5T"),
    *("llama_conv70_HH25P15T", "llama_code70_HA35P8T", "bloom_code100_HH35P5T"),
]
ROUNDING = 5e-6  # of the published figures, as a share of the smallest
DESIGNS = ["splitwise_hh", "splitwise_aa", "splitwise_ha", "splitwise_hhcap", "baseline_a100", "baseline_h100"]
BLOOM_TOKENS = (8 * 80 * 2**30 - 329 * 10**9) // 4_014_080  # of KV cache a machine holds
WORKED_EXAMPLE = [(1.0, 1000, 50), (1.0, 1000, 50), (1.0, 1000, 50), (1.0, 3000, 50), (1.01, 200, 50)]
DRAIN_S = 100.0


def cluster_of(*overrides: str):
    # The workload only fills the oracle; `simulate` puts in the one of the test.
    plan = build(compose(["experiment=splitwise_sim", "workload=fixed", *overrides]))
    return plan.run_config.cluster


def one_to_one(*overrides: str):
    return cluster_of("cluster=splitwise_hh", "cluster.num_prompt=1", "cluster.num_token=1", "model=bloom_176b", *overrides)


def colocated(num_machines: int, *overrides: str):
    return cluster_of("cluster=baseline_h100", f"cluster.num_machines={num_machines}", "model=bloom_176b", *overrides)


class Watch:
    """In place of the event log: checks each machine after each of its events, and keeps what the log would have."""

    def __init__(self) -> None:
        self.machines: list[SplitwiseSimMachine] = []
        self.packed: list[bytes] = []
        self.flow_bytes: dict[int, int] = {}

    def append(self, party: int, now_s: float, event: tuple, actions: list[tuple]) -> None:
        self.packed.append(pack_record(party, now_s, event, actions))
        if type(event) is FlowRequested:
            # A request's first flow: one after a failed transfer brings the tokens that are out as well.
            self.flow_bytes.setdefault(event.request_id, event.num_bytes)
        elif party >= 0:
            machine = self.machines[party]
            assert_memory_adds_up(machine)
            assert_batch_is_allowed(machine)


def assert_memory_adds_up(machine: SplitwiseSimMachine) -> None:
    batcher, handovers, memory = machine.batcher, machine.handovers, machine.memory
    assert memory.num_used + memory.num_free == memory.num_bytes
    assert memory.num_free >= 0
    holders = [*batcher.prefilling, *machine.decodes.values(), *handovers.holding.values(), *handovers.pulling.values()]
    assert sum(task.held_bytes for task in holders) == memory.num_used
    active = batcher.active
    contexts = [task.num_cached + active.step - task.joined_at + 1 for task in active.tasks.values()]
    assert sum(contexts) == active.context_tokens


def assert_batch_is_allowed(machine: SplitwiseSimMachine) -> None:
    batcher = machine.batcher
    num_prompt_tokens = sum(task.prompt_tokens for task in batcher.prefilling)
    assert batcher.num_running <= 512
    is_one_prompt = len(batcher.prefilling) == batcher.num_running == 1
    assert is_one_prompt or num_prompt_tokens + len(batcher.active.tasks) <= 2048
    waiting = {*batcher.prompts, *batcher.paused.values(), *batcher.fresh}
    decodes_of_prompts = {machine.decodes.get(task.request_id) for task in [*batcher.prompts, *batcher.prefilling]} - {None}
    assert waiting | decodes_of_prompts == {*batcher.pending}
    assert len(batcher.pending) == len({*batcher.pending})
    assert machine.is_running == bool(batcher.num_running)


def assert_nothing_is_left(runtime: VirtualRuntime) -> None:
    scheduler = runtime.scheduler
    assert not scheduler.requests
    for load, machine in zip(scheduler.pools.machines, runtime.machines, strict=True):
        assert (load.num_prefills, load.num_decodes, load.scheduled_bytes) == (0, 0, 0)
        if load.pool is not Pool.DEAD:
            assert load.num_present == 0
            assert load.home is Pool.MIXED or not load.has_queue  # colocated machines do not tell: nobody asks
            assert machine.memory.num_used == len(machine.decodes) == len(machine.batcher.pending) == 0
            assert not machine.handovers.inbound


def simulate(cluster, requests, deaths: dict[int, float] | None = None, max_drain_s: float = DRAIN_S) -> Run:
    """Run `requests`, (arrival, prompt tokens, output tokens) each; machines die at the times in `deaths`.

    Whatever a test is about, this checks of its run: the invariants, at every event and at the end; that the same run again
    leaves the same bytes; and that step-by-step execution comes to the same tables, to the bit.
    """
    workload = make_workload(requests)
    kind = cluster.kind.consult(OutputOracle(workload.output_tokens.tolist()))
    cluster = replace(cluster, kind=kind)
    faults = [Fault(*death) for death in (deaths or {}).items()]

    def run(**limit: int) -> Run:
        watch, recorder = Watch(), Recorder(workload, len(cluster.machines))
        runtime = VirtualRuntime(cluster, workload, recorder, max_drain_s, faults, watch, **limit)
        watch.machines = runtime.machines
        runtime.run()
        columns = recorder.columns()
        assert violations(Ended(columns, handover_ledger(columns, cluster))) == []
        assert_nothing_is_left(runtime)
        tokens = {request_id: workload.prompt_tokens[request_id] for request_id in watch.flow_bytes}
        assert watch.flow_bytes == {key: num * cluster.model.kv_bytes_per_token for key, num in tokens.items()}
        return Run(columns, len(cluster.machines), b"".join(watch.packed))

    first = run()
    assert run().packed_events == first.packed_events
    assert_same_tables(run(max_num_steps=1).columns, first.columns)
    return first


def printed(seconds, digits: int) -> list[str]:
    return [f"{value:.{digits}f}" for value in seconds]


def ttft_s(columns: Columns) -> np.ndarray:
    return columns.requests.first_token_s - columns.requests.arrival_s


# --- the published results --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tool():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        yield importlib.import_module("compare_reference")


@pytest.mark.parametrize("name", RUNS)
def test_the_published_results_are_reproduced(tool, name):
    folder = tool.DATA / "splitwise_reference"
    if not folder.is_dir():
        pytest.skip("needs $EMU_DATA/splitwise_reference")
    with (folder / "reference.csv").open() as file:
        [row] = [row for row in csv.DictReader(file) if row["run"] == name]
    result = tool.compare(row, folder)
    assert result["unfinished"] == 0
    assert result["max_difference"] < ROUNDING
    assert result["to_mixed"] == int(row["to_mixed"])


# --- the worked example -----------------------------------------------------------------------------------------------


def test_worked_example_split():
    run = simulate(one_to_one(), WORKED_EXAMPLE)
    assert printed(ttft_s(run.columns), 6) == ["0.129588", "0.375939", "0.375939", "0.812741", "0.852654"]
    batches, requests = run.columns.batches, run.columns.requests
    assert batches.prefill_tokens[batches.machine == 0].tolist() == [1000, 2000, 3000, 200]
    assert printed([1000 * (requests.decode_start_s - requests.first_token_s)[0]], 3) == ["18.692"]


def test_worked_example_baseline():
    run = simulate(colocated(1), WORKED_EXAMPLE)
    steps = run.columns.steps
    assert printed(1000 * (steps.end_s - steps.start_s)[:4], 3) == ["129.588", "271.115", "436.802", "55.004"]
    assert steps.prefill_tokens[:4].tolist() == [1000, 2000, 3000, 200]
    assert steps.num_decodes[:5].tolist() == [0, 1, 0, 4, 5]
    assert run.columns.requests.num_tokens_out.tolist() == [50] * 5


# --- what is peculiar to it -------------------------------------------------------------------------------------------


def test_a_hand_over_without_memory_is_tried_again_each_second():
    random = np.random.default_rng(0)
    arrival_s, prompt_tokens = np.sort(random.uniform(0, 12, 60)), random.integers(4000, 14_000, 60)
    requests = zip(arrival_s.tolist(), prompt_tokens.tolist(), random.integers(100, 900, 60).tolist(), strict=True)
    cluster = one_to_one("cluster.num_prompt=4", "cluster.num_token=2")
    columns = simulate(cluster, list(requests), max_drain_s=3600).columns
    delay_s = columns.requests.kv_pull_s - columns.requests.kv_ready_s
    assert (columns.requests.status == FINISHED).all()
    assert sorted(delay_s[delay_s > 0].round(9).tolist()) == [7.0, 21.0]


# Two of these fit a machine by their prompts, but then neither output does: a deadlock.
HALF = (30_000, 40_000)


def test_prompts_that_fill_the_memory_deadlock_and_saturate():
    assert 2 * 30_000 < BLOOM_TOKENS < 2 * 30_000 + 40_000
    run = simulate(colocated(1), [(0.0, *HALF), (0.1, *HALF), (60.0, 30_000, 2)])
    requests = run.columns.requests
    assert (requests.status == FAILED).all()
    assert np.isnan(requests.decode_start_s).all()
    assert is_saturated(run.columns, 2.0)


def test_decodes_that_never_start_saturate_though_no_prompt_waits():
    others = [(40.0 + i, 100, 20) for i in range(20)]
    run = simulate(colocated(2), [(0.0, *HALF), (0.1, 31_000, 2), (0.2, *HALF), *others])
    requests = run.columns.requests
    assert requests.prefill_on.tolist() == [0, 1, 0] + [1] * 20
    assert (requests.status == FAILED).tolist() == [True, False, True] + [False] * 20
    assert is_saturated(run.columns, 2.0)


def test_a_machine_of_the_mixed_pool_goes_home_when_idle():
    # The second prompt waits and the third would take the queue beyond 8,192 tokens: the token machine takes it.
    run = simulate(one_to_one(), [(0.0, 4000, 5), (0.001, 3000, 5), (0.002, 2000, 5)])
    moves = run.pool_moves()
    assert [(machine, pool) for _, machine, pool in moves] == [(1, "mixed"), (1, "token")]
    assert run.columns.requests.prefill_on.tolist() == [0, 0, 1]
    last_s = run.columns.requests.last_token_s
    assert moves[1][0] >= round(float(last_s[2]), 12)


def test_requests_of_a_dead_machine_start_again():
    run = simulate(one_to_one("cluster.num_token=2"), [(0.1 * i, 500, 40) for i in range(20)], deaths={1: 1.0})
    requests = run.columns.requests
    assert (requests.status == FINISHED).all()
    assert (requests.attempts > 1).any()


def test_requests_whose_kv_cache_is_lost_start_again():
    cluster = losing(one_to_one("cluster.num_prompt=2", "cluster.num_token=2"), at_random(seed=0, share=0.6))
    requests = simulate(cluster, [(0.1 * i, 500, 40) for i in range(40)]).columns.requests
    assert set(requests.attempts[requests.status == FINISHED].tolist()) == {1, 2, 3}
    assert (requests.status == FAILED).any()


@pytest.mark.parametrize("rate_rps", [3, 8, 25])
@pytest.mark.parametrize("design", ["splitwise_ha", "baseline_h100"])
def test_random_loads(design, rate_rps):
    random = np.random.default_rng(rate_rps)
    num = 150
    arrival_s = np.cumsum(random.exponential(1 / rate_rps, num))
    prompt_tokens = np.minimum(14_000, random.lognormal(7, 1.2, num)).astype(int) + 1
    output_tokens = np.minimum(2000, random.lognormal(4, 1.5, num)).astype(int) + 1  # one-token answers too
    requests = list(zip(arrival_s.tolist(), prompt_tokens.tolist(), output_tokens.tolist(), strict=True))
    sizes = ["cluster.num_machines=2"] if "baseline" in design else ["cluster.num_prompt=2", "cluster.num_token=1"]
    simulate(cluster_of(f"cluster={design}", *sizes, "model=llama2_70b"), requests, max_drain_s=3600)


# --- its configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["llama2_70b", "bloom_176b"])
@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_and_model_runs(design, model):
    cluster = cluster_of(f"cluster={design}", f"model={model}")
    assert cluster.model.kv_bytes_per_token == 2 * cluster.model.hidden_size * cluster.model.num_layers * 2
    weight_bytes = {"llama2_70b": 135 * 10**9, "bloom_176b": 329 * 10**9}[model]
    free_bytes = 8 * 80 * 2**30 - weight_bytes
    assert all(machine.memory.num_bytes == free_bytes for machine in map(cluster.make_machine, range(6)))
    run = simulate(cluster, [(0.1 * i, 700, 20) for i in range(12)])
    assert (run.columns.requests.status == FINISHED).all()


def test_a_capped_machine_prefills_1_3_times_as_long():
    p0, d0 = (spec.timing for spec in one_to_one("cluster=splitwise_hhcap").machines)
    assert d0.prefill_s([1500]) == pytest.approx(1.3 * p0.prefill_s([1500]), rel=1e-12)
    assert d0.decode_s(30, 0) == p0.decode_s(30, 0)


def test_only_its_machines_know_the_output_lengths():
    kind = one_to_one().kind
    assert kind.wants_oracle
    assert kind.oracle.output_tokens(0) == 100
    paged = build(compose(["runtime=virtual"])).run_config.cluster.kind
    assert not paged.wants_oracle
    assert not hasattr(paged, "oracle")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["placement=splitwise_sim", "machine=paged"], "placement=splitwise_sim needs machine=splitwise_sim"),
        (["machine.retry_s=0"], "machine.retry_s=0: expected a number > 0"),
        (["machine.weight_bytes.bloom_176b=-1"], "machine.weight_bytes.bloom_176b=-1: expected a whole number from 0 to "),
        (
            ["model=bloom_176b", "cluster.token_hardware.num_gpus=8", "cluster.token_hardware.hbm_bytes_per_gpu=4e10"],
            "cluster.token_hardware.hbm_bytes_per_gpu=40000000000.0: expected a whole number",
        ),
        (
            ["model=bloom_176b", "cluster.token_hardware.hbm_bytes_per_gpu=40_000_000_000"],
            "model bloom_176b does not fit hardware dgx_h100: weights 329.0 GB, memory 320.0 GB (num_gpus=8 x "
            "hbm_bytes_per_gpu=40,000,000,000)",
        ),
        (
            ["model.name=mine"],
            "machine.weight_bytes has no model mine; there is: llama2_70b, bloom_176b",
        ),
    ],
)
def test_wrong_input_is_one_line(overrides, line):
    with pytest.raises(ConfigError) as caught:
        build(compose(["experiment=splitwise_sim", *overrides]))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(line) if line.endswith(" ") else text == line
