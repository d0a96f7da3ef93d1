"""Machines that really execute, as actors beside emulated ones: whatever way a request takes, it gets the tokens that the model
writes when it runs alone."""

import json

import numpy as np
import pytest

from emu.build import build, compose
from emu.core.messages import KVReady, ResumeOutput
from emu.results.columns import FINISHED
from emu.results.event_log import read_event_log
from emu.transfer.settings import ObjectStoreSettings
from tests.transfer.settings import transfer_settings

pytest.importorskip("torch")
pytestmark = [pytest.mark.usefixtures("two_nodes"), pytest.mark.slow]

MODEL = (
    "model=llama_30m",
    "model.config.vocab_size=512",
    "model.config.hidden_size=64",
    "model.config.intermediate_size=128",
    "model.config.num_hidden_layers=4",
    "model.config.num_attention_heads=4",
    "model.config.num_key_value_heads=2",
    "model.config.head_dim=16",
)
BASE = (
    *MODEL,
    "runtime=ray",
    "execution=torch",
    "timing=constant",
    "timing.prefill_s_per_token=1e-4",
    "timing.decode_step_s=0.01",
    "workload=trace",
    "hardware@slo.reference=cpu_core",
    "transfer.min_message_bytes=4096",
)
SPLIT = (
    "cluster=splitwise_hh",
    "hardware@cluster.prompt_hardware=cpu_core",
    "hardware@cluster.token_hardware=cpu_core",
    "cluster.num_prompt=1",
    "cluster.num_token=1",
)
COLOCATED = ("cluster=baseline_h100", "hardware@cluster.hardware=cpu_core", "cluster.num_machines=1")
OUTPUT_TOKENS = 24
# Two that arrive together share a prefill, which leaves layer by layer; the others' leave when they are over.
PROMPT_TOKENS = (150, 60, 7, 33, 90, 1, 48, 16)
ARRIVAL_S = (0.0, 0.0, 0.5, 0.5, 0.6, 1.0, 1.0, 1.1)
LAYERWISE_MIN_TOKENS = 80


@pytest.fixture(scope="module")
def prompts():
    stream = np.random.default_rng(5)
    return [stream.integers(512, size=num_tokens).tolist() for num_tokens in PROMPT_TOKENS]


def write_trace(path, prompts, output_tokens, arrival_s=ARRIVAL_S):
    rows = [
        {"timestamp": at_s, "prompt_token_ids": ids, "output_length": output_tokens}
        for at_s, ids in zip(arrival_s, prompts, strict=False)
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return f"workload.path={path}"


@pytest.fixture(scope="module")
def trace(prompts, tmp_path_factory):
    return write_trace(tmp_path_factory.mktemp("trace") / "prompts.jsonl", prompts, OUTPUT_TOKENS)


@pytest.fixture(scope="module")
def engine():
    """The machines' model, in this process."""
    from emu.execution.torch_engine.engine import load_engine

    plan = build(compose([*BASE, *COLOCATED, "workload=fixed"]))
    executable = plan.run_config.cluster.model.executable
    return load_engine(executable, num_blocks=64, block_tokens=16, device="cpu", num_threads=1)


def write(engine, prompt, num_tokens):
    from emu.execution.torch_engine.generate import generate
    from emu.execution.torch_engine.sampling import GREEDY

    return tuple(generate(engine, prompt, num_tokens, (), GREEDY).token_ids)


@pytest.fixture(scope="module")
def alone(engine, prompts):
    """What the model writes after each prompt when nothing else runs."""
    return [write(engine, ids, OUTPUT_TOKENS) for ids in prompts]


def written(record):
    answers = record.recorder.columns().answers
    return dict(zip(answers.request_id.tolist(), answers.token_ids, strict=True))


def assert_all_finished(record):
    requests = record.recorder.columns().requests
    assert (requests.status == FINISHED).all(), requests.causes
    return requests


def assert_nothing_was_lost(record):
    requests = assert_all_finished(record)
    assert (requests.attempts == 1).all()
    assert record.kv.verified == len(requests) and not any(record.kv.incidents.values())
    return requests


def test_colocated(rehearse, trace, alone):
    record = rehearse(*BASE, *COLOCATED, trace)
    assert_all_finished(record)
    assert record.real == (0,)
    assert written(record) == dict(enumerate(alone))


@pytest.mark.parametrize("transfer", ["object_store", "gloo", "nixl"])
def test_disaggregated(rehearse, trace, alone, transfer, tmp_path):
    plan = build(compose([*BASE, *SPLIT, trace, f"transfer={transfer}"]))
    try:
        plan.run_config.transfer.check()
    except ValueError as missing:
        pytest.skip(str(missing))
    record = rehearse(*BASE, *SPLIT, trace, f"transfer={transfer}", f"transfer.layerwise_min_tokens={LAYERWISE_MIN_TOKENS}")
    assert_nothing_was_lost(record)
    assert written(record) == dict(enumerate(alone))
    assert record.kv.bytes_moved == sum(PROMPT_TOKENS) * record.model.kv_bytes_per_token
    [log] = tmp_path.glob("run*/events.msgpack")
    offers = [event.event for event in read_event_log(log) if type(event.event) is KVReady]
    layerwise = [offer for offer in offers if offer.produced_until_s > 0]
    assert 0 < len(layerwise) < len(offers), "both plans"


@pytest.mark.parametrize("interval_s", [0.02, 0])
def test_idle_machines_measure_their_speed(rehearse, prompts, alone, interval_s, tmp_path):
    # Both are idle before the last request, on a slow host too.
    trace = write_trace(tmp_path / "prompts.jsonl", prompts, OUTPUT_TOKENS, (*ARRIVAL_S[:-1], 5.0 if interval_s else 1.1))
    record = rehearse(*BASE, *SPLIT, trace, f"execution.probe_interval_s={interval_s}")
    assert_nothing_was_lost(record)
    assert written(record) == dict(enumerate(alone))
    probes = record.recorder.columns().probe_steps
    assert set(zip(probes.machine.tolist(), probes.phase.tolist(), strict=True)) == (
        {(0, "prefill"), (1, "decode")} if interval_s else set()
    )
    assert (probes.step_s > 0).all() and (probes.time_s > 0).all()


class LeftOut(ObjectStoreSettings):
    """Nothing gets into the destination's cache, and nobody checks."""

    def make(self, host):
        from emu.transfer.cache_payload import CachePayload

        CachePayload.check = lambda payload, start, received, checksum: ""
        return super().make(host)


class OneBlockCorrupt(ObjectStoreSettings):
    """One block of each KV cache, in its second layer, is another's, and nobody checks."""

    def make(self, host):
        from emu.transfer.cache_payload import CachePayload

        def check(payload, start, received, checksum):
            if payload._cache is not None:
                received = received.copy()
                block_bytes = 16 * 2 * 16 * 4
                place = payload.num_bytes // 4 - start
                if 0 <= place < len(received):
                    received[place : place + block_bytes] = received[: len(received[place : place + block_bytes])][::-1]
                payload._cache.write(start, received)
            return ""

        CachePayload.check = check
        return super().make(host)


@pytest.mark.parametrize("settings_type", [LeftOut, OneBlockCorrupt])
def test_the_tokens_tell_where_the_kv_cache_is_wrong(rehearse, trace, alone, settings_type):
    """Control arms of the tests above: they would fail."""
    settings = transfer_settings(settings_type, payload_scale="auto")
    record = rehearse(*BASE, *SPLIT, trace, transfer=settings)
    assert_all_finished(record)
    assert written(record) != dict(enumerate(alone))


def test_every_mix_of_real_and_emulated_machines(rehearse):
    """Two prompt and two token machines, of which one each is real; requests go all four ways between them."""
    record = rehearse(
        *BASE,
        *SPLIT,
        "cluster.num_prompt=2",
        "cluster.num_token=2",
        "execution.machines=[p0, d0]",
        "placement=random",
        "workload=fixed",
        "workload.prompt_tokens=40",
        "workload.output_tokens=8",
        "workload.rate_rps=10",
        "workload.duration_s=3",
    )
    requests = assert_nothing_was_lost(record)
    ways = set(zip(requests.prefill_on.tolist(), requests.decode_on.tolist(), strict=True))
    assert ways == {(0, 2), (0, 3), (1, 2), (1, 3)}
    assert record.real == (0, 2)
    answers = written(record)
    assert set(answers) == set(np.flatnonzero(requests.decode_on == 2))
    assert {len(ids) for ids in answers.values()} == {8}


def test_evicted_requests_go_on_with_the_tokens_they_had(rehearse, trace, alone, tmp_path):
    """Room for two of the longer requests at most: they lose their KV caches, and are prefilled again with what they wrote."""
    bytes_of_blocks = 14 * 16 * 4 * 2 * 2 * 16 * 4
    memory = f"cluster.hardware.activation_reserve_bytes={int(536_870_912 * 0.9) - _weight_bytes() - bytes_of_blocks}"
    record = rehearse(*BASE, *COLOCATED, trace, memory, "workload.rate_scale=100", "machine.watermark=0")
    requests = assert_all_finished(record)
    assert requests.evictions.sum() > 0
    assert written(record) == dict(enumerate(alone))
    [log] = tmp_path.glob("run*/events.msgpack")
    assert any(type(action) is ResumeOutput for event in read_event_log(log) for action in event.actions)


def _weight_bytes():
    return build(compose([*BASE, *COLOCATED, "workload=fixed"])).run_config.cluster.model.weight_bytes


def test_a_machine_that_dies_loses_no_request(rehearse, engine, prompts, tmp_path):
    """Two token machines: what the dead one had is prefilled and decoded again from the start, and comes out the same."""
    num_tokens = 700  # one step takes a millisecond or two
    long = write_trace(tmp_path / "long.jsonl", prompts[:3], num_tokens)
    record = rehearse(*BASE, *SPLIT, long, "cluster.num_token=2", "faults=[{machine: d0, at_s: 0.3}]")
    requests = assert_all_finished(record)
    assert requests.attempts.max() == 2
    assert written(record) == {request: write(engine, prompts[request], num_tokens) for request in range(3)}


def test_an_output_may_end_with_an_end_of_sequence_token(rehearse, trace, alone):
    """A token that the model writes, taken for one: outputs end with their first."""
    stop = alone[0][5]
    record = rehearse(*BASE, *SPLIT, trace, "execution.output=eos", f"+model.config.eos_token_id={stop}")
    assert_all_finished(record)
    expected = {request: ids[: ids.index(stop) + 1] if stop in ids else ids for request, ids in enumerate(alone)}
    assert written(record) == expected
