"""The worked example of the published simulator (SPLITWISE.md §9): BLOOM-176B on DGX-H100, to the printed digit.

The set-up mirrors it: its timing lookup, no control latency, and a private link of 200 x 1024^3 B/s a request. (Its KV size,
2 x hidden x layers x 2 B a token, is BLOOM's own: it has no grouped-query attention.)
"""

from dataclasses import replace

import pytest

from emu.build import build, compose
from tests.clusters import Run, simulate

TRACE = """arrival_timestamp,prompt_size,token_size
1.0,1000,50
1.0,1000,50
1.0,1000,50
1.0,3000,50
1.01,200,50
"""
PUBLISHED = ["model=bloom_176b", "timing=splitwise_sim", "runtime=virtual", "runtime.control_latency_s=0", "workload=trace"]
PUBLISHED += ["transfer.layerwise_min_tokens=inf", "transfer.contention=false"]


@pytest.fixture
def run_published(tmp_path):
    def run(*overrides: str) -> Run:
        trace = tmp_path / "trace.csv"
        trace.write_text(TRACE)
        window = [f"workload.path={trace}", "workload.start_s=0", "workload.duration_s=10"]
        plan = build(compose([*PUBLISHED, *window, *overrides]))
        run_config = replace(plan.run_config, run_dir=tmp_path, log_events=False)
        return simulate(run_config.cluster, run_config.workload)

    return run


def links(machines: str) -> list[str]:
    return [f"cluster.{machines}.nic_bytes_per_s={200 * 1024**3}", f"cluster.{machines}.link_latency_s=0"]


def printed(seconds, digits: int) -> list[str]:
    return [f"{value:.{digits}f}" for value in seconds]


def test_split(run_published):
    split = ["cluster=splitwise_hh", "cluster.num_prompt=1", "cluster.num_token=1"]
    run = run_published(*split, *links("prompt_hardware"), *links("token_hardware"))
    requests = run.columns.requests
    ttft_s = requests.first_token_s - requests.arrival_s
    assert printed(ttft_s, 6) == ["0.129588", "0.375939", "0.375939", "0.812741", "0.852654"]
    # 1,000 alone, which was there first; 2 x 1,000 together, as more than 2,048 tokens do not fit; 3,000 alone; 200.
    batches = run.columns.batches
    on_prompt = batches.machine == 0
    assert printed(1000 * (batches.start_s[on_prompt] - 1.0), 3) == ["0.000", "129.588", "375.939", "812.741"]
    assert batches.prefill_tokens[on_prompt].tolist() == [1000, 2000, 3000, 200]
    # The token machine is idle: the first decode step starts as soon as the KV cache is there.
    assert printed([1000 * (requests.decode_start_s - requests.first_token_s)[0]], 3) == ["18.692"]
    kv_bytes = 2 * 14336 * 70 * 2 * requests.prompt_tokens
    transfer_s = run.columns.transfers.received_s - run.columns.transfers.pull_s
    assert transfer_s == pytest.approx(kv_bytes[run.columns.transfers.request_id] / (200 * 1024**3), abs=1e-12)


def test_baseline(run_published):
    run = run_published("cluster=baseline_h100", "cluster.num_machines=1")
    steps = run.columns.steps
    assert printed(1000 * (steps.end_s - steps.start_s)[:4], 3) == ["129.588", "271.115", "436.802", "55.004"]
    # Two prompts beside the first request's decode; the long prompt alone, all decodes paused; the last one beside all four.
    assert steps.prefill_tokens[:4].tolist() == [1000, 2000, 3000, 200]
    assert steps.num_decodes[:5].tolist() == [0, 1, 0, 4, 5]
    assert steps.num_paused[:4].tolist() == [0, 0, 3, 0]
    assert run.columns.requests.num_tokens_out.tolist() == [50] * 5
