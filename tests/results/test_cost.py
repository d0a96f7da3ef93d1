"""Energy by both methods and cost, by hand."""

from dataclasses import replace

import numpy as np
import pytest
from facts import HARDWARE, MODEL, decode, prefill, recorded, run_cluster, run_record, summary_of

from emu.build import build, compose
from emu.config_error import ConfigError
from emu.core.batch import Batch, DecodeJoin, Prefill
from emu.core.facts import PoolChanged, RequestEnded, RequestPlaced, TokensEmitted
from emu.core.setting import SettingError
from emu.results.cost import alive_seconds, cost_and_energy
from emu.results.power import PhasePower, RatedPower

BIG = replace(HARDWARE, name="big", num_gpus=8, gpu_power_w=400.0, relative_power=1.5, price_per_hour=36.0)
CAPPED = replace(BIG, name="capped", gpu_power_w=200.0, relative_power=1.0, price_per_hour=18.0)
FIT = {
    "prefill_tokens": [100, 300],
    "prefill_share": [0.5, 0.9],
    "decode_num_seqs": [1, 3],
    "decode_share": [0.25, 0.35],
}
PHASE = PhasePower(idle_share=0.125, host_share=0.5, uncapped_gpu_power_w={"capped": 400}, fits={"tiny": FIT})


def record(hardware=(BIG, CAPPED, BIG), **changes):
    """p0 prefills 200 tokens for 2 s and d0 decodes two requests for 4 s; d1, idle, is declared dead at 5 s of 10."""
    recorder = recorded(
        [(0.0, 100, 3), (0.0, 100, 3), (9.0, 100, 3)],
        [
            (0.0, RequestPlaced(0, 1, 0, 1)),
            (0.0, RequestPlaced(1, 1, 0, 1)),
            prefill(0, 0.0, 2.0, (0, 1, 100, 0), (1, 1, 100, 0)),
            decode(1, 3.0, [5.0, 7.0], (0, 1, 100, 1), (1, 1, 100, 1), finished=(0, 1), num_decodes=2),
            (5.0, PoolChanged(2, "dead")),
            (7.0, RequestEnded(0, 1, "")),
            (7.0, RequestEnded(1, 1, "")),
            (9.0, RequestEnded(2, 1, "too long")),
        ],
    )
    return on(run_record(recorder, **changes), *hardware)


def on(run, *hardware):
    machines = tuple(replace(machine, hardware=each) for machine, each in zip(run.machines, hardware, strict=True))
    return replace(run, cluster=replace(run.cluster, machines=machines))


def energy_j(power, run):
    return power.energy_j(run, alive_seconds(run, run.recorder.columns())).tolist()


def test_rated_power_is_taken_while_alive():
    power = RatedPower(base_w=6500)
    assert energy_j(power, record()) == [6500 * 1.5 * 10, 6500 * 10, 6500 * 1.5 * 5]


def test_power_by_phase():
    gpus_w, host_w = 8 * 400, 0.5 * 8 * 400
    p0 = 0.7 * gpus_w * 2 + 0.125 * gpus_w * 8 + host_w * 10  # 200 tokens lie half way from 100 to 300
    d0 = 0.3 * gpus_w * 4 + 0.125 * gpus_w * 6 + host_w * 10  # two decodes; 0.3 of 400 W is below the cap of 200 W
    d1 = 0.125 * gpus_w * 5 + host_w * 5
    assert energy_j(PHASE, record()) == pytest.approx([p0, d0, d1], rel=1e-12)


def test_a_cap_limits_what_goes_beyond_it_and_nothing_else():
    uncapped, capped = energy_j(PHASE, record((BIG, BIG, BIG))), energy_j(PHASE, record((CAPPED, CAPPED, CAPPED)))
    assert uncapped[1:] == capped[1:]  # decode and idling take less than the cap
    assert uncapped[0] - capped[0] == pytest.approx((0.7 * 400 - 200) * 8 * 2)


@pytest.mark.parametrize(("tokens", "share"), [(1, 0.5), (100, 0.5), (150, 0.6), (300, 0.9), (9000, 0.9)])
def test_shares_are_lines_between_their_points_and_constant_beyond(tokens, share):
    facts = [
        (0.0, RequestPlaced(0, 1, 0, 0)),
        prefill(0, 0.0, 10.0, (0, 1, tokens, 0), finished=(0,)),
        (10.0, RequestEnded(0, 1, "")),
    ]
    run = run_record(recorded([(0.0, tokens, 1)], facts, num_machines=1), ("m0",))
    [joules] = energy_j(PHASE, on(run, BIG))
    assert joules == pytest.approx(share * 3200 * 10 + 0.5 * 3200 * 10)


def test_a_mixed_step_takes_the_larger_share():
    batch = Batch((Prefill(1, 1, 100, 0),), (DecodeJoin(0, 1, 100, 1),), (), 1, 101, 0)
    recorder = recorded(
        [(0.0, 100, 2), (0.0, 100, 1)], [prefill(0, 0.0, 1.0, (0, 1, 100, 0)), TokensEmitted(0, 1.0, (10.0,), batch, (0, 1))], 1
    )
    run = run_record(recorder, ("m0",))
    [joules] = energy_j(PHASE, on(run, BIG))
    assert joules == pytest.approx((0.5 + 0.5) * 3200 * 10)


def test_cost_and_energy_by_hand():
    run = record()
    result = cost_and_energy(run, run.recorder.columns(), RatedPower(base_w=3600.0))
    hours, dollars, kwh = 25 / 3600, (36 * 10 + 18 * 10 + 36 * 5) / 3600, (15 + 10 + 7.5) * 3600 / 3.6e6

    def spread(total):  # 2 finished requests: 6 output tokens, 200 of their prompts
        yields = {"per_million_output_tokens": 6e-6, "per_million_tokens": 206e-6, "per_request": 2}
        return {"total": pytest.approx(total)} | {name: pytest.approx(total / amount) for name, amount in yields.items()}

    assert result["cost"] == {"machine_hours": spread(hours), "dollars": spread(dollars)}
    assert result["energy"] == {"method": "rated", "kwh": spread(kwh), "mean_power_w": pytest.approx(3600 * 3.25)}


def test_what_yields_nothing_has_no_cost_a_request():
    run = run_record(recorded([(0.0, 8, 2)], []), emulated_s=0.0)
    result = cost_and_energy(run, run.recorder.columns(), RatedPower(base_w=1.0))
    assert result["cost"]["dollars"] == {
        "total": 0.0,
        "per_million_output_tokens": None,
        "per_million_tokens": None,
        "per_request": None,
    }
    assert result["energy"]["mean_power_w"] is None


def test_the_method_is_told_in_the_summary():
    assert summary_of(record(), power=PHASE)["energy"]["method"] == "phase"


def test_power_of_the_committed_configuration():
    """Both methods agree on a machine at full load, as the file says; decode takes less than prefill."""
    plan = build(compose(["runtime=virtual", "power=phase", "cluster=splitwise_ha"]))
    phase, rated = plan.power, build(compose(["runtime=virtual"])).power
    machines = plan.run_config.cluster.machines
    assert {machine.hardware.name for machine in machines} == {"dgx_a100", "dgx_h100"}
    for hardware in (machine.hardware for machine in machines):
        full_w = hardware.num_gpus * hardware.gpu_power_w * (1 + phase.host_share)
        assert full_w == pytest.approx(rated.base_w * hardware.relative_power)
    for fit in phase.fits.values():
        assert fit["decode_share"].max() < 0.7 < fit["prefill_share"].max()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["power=solar"], "power=solar: no such option; expected one of phase, rated"),
        (["power.base_w=0"], "power.base_w=0: expected a number > 0"),
        (["power=phase", "power.base_w=1"], "power.base_w: no such setting; power has idle_share, host_share, "),
        (["power=phase", "power.idle_share=2"], "power.idle_share=2: expected a number from 0 to 1"),
        (["power=phase", "power.host_share=-1"], "power.host_share=-1: expected a number >= 0"),
        (["power=phase", "power.uncapped_gpu_power_w.dgx_h100_capped=0"], "power.uncapped_gpu_power_w.dgx_h100_capped=0: "),
        (["power=phase", "~power.fits.llama2_70b.decode_share"], "power.fits.llama2_70b.decode_share is required: "),
        (
            ["power=phase", "power.fits.llama2_70b.decode_share=[a]"],
            "power.fits.llama2_70b.decode_share=a: expected a number > 0",
        ),
        (["power=phase", "power.fits.llama2_70b.decode_num_seqs=[1,2]"], "power.fits.llama2_70b.decode_num_seqs=[1.0, 2.0]: "),
        (["power=phase", "power.fits.llama2_70b=3"], "power.fits.llama2_70b.prefill_tokens is required: "),
        (
            ["power=phase", "~power.fits.llama2_70b"],
            "power=phase: no power was measured for model llama2_70b; there is: bloom_176b; or power=rated",
        ),
    ],
)
def test_wrong_input_is_one_line(overrides, line):
    with pytest.raises(ConfigError) as caught:
        build(compose(["runtime=virtual", *overrides]))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(line) if line.endswith(" ") else text == line


def test_points_must_ascend():
    with pytest.raises(SettingError, match=r"^power\.fits\.tiny\.decode_num_seqs=\[3\.0, 3\.0\]: expected 2 ascending numbers"):
        PhasePower(0.1, 0.1, {}, {MODEL.name: FIT | {"decode_num_seqs": [3, 3]}})


def test_energy_is_summed_a_machine():
    assert np.shape(PHASE.energy_j(record(), np.full(3, 10.0))) == (3,)


def test_a_run_is_paid_to_its_last_event_and_not_to_the_limit_of_its_drain():
    run = run_cluster(("p0", "d0"), [(0.1 * i, 20, 30) for i in range(20)], max_drain_s=60.0)
    last_end_s = float(run.recorder.columns().requests.end_s.max())
    assert last_end_s <= run.emulated_s < last_end_s + 0.1
