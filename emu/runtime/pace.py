"""How many of the KV bytes a run moves, and how slowly: what this host can do is measured where it is not given."""

from dataclasses import dataclass

from emu.core.pools import Role
from emu.runtime.ray_cluster import RayCluster
from emu.runtime.run_config import RunConfig
from emu.transfer.payload_scale import LARGE_BYTES, SMALL_BYTES, TransferProbe, choose_dilation, choose_payload_scale

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Pace:
    """`payload_scale` of the true KV bytes are moved, `dilation` wall seconds are an emulated one.

    `probed_bytes_per_s` is the measured rate that one of them was chosen by, None where none was.
    """

    payload_scale: float
    dilation: float
    probed_bytes_per_s: float | None = None


async def choose_pace(run_config: RunConfig, actors: RayCluster, dilation: float | str) -> Pace:
    """The pace as configured; what is `auto` is chosen by what a transfer between two idle machines takes.

    With both `auto` the run goes at real speed, and moves what it can; where machines execute, all of it.
    """
    if run_config.execution.real_machines(run_config.cluster.machines):
        return Pace(payload_scale=1.0, dilation=1.0)
    cluster = run_config.cluster
    scale = None if run_config.transfer.payload_scale == AUTO else float(run_config.transfer.payload_scale)
    given = None if dilation == AUTO else float(dilation)
    by_role = {spec.role: spec for spec in cluster.machines}
    if scale == 0 or None not in (scale, given) or not {Role.PREFILL, Role.DECODE} <= by_role.keys():
        return Pace(1.0 if scale is None else scale, 1.0 if given is None else given)
    pair = (by_role[Role.PREFILL], by_role[Role.DECODE])
    sizes = (SMALL_BYTES, LARGE_BYTES)
    probe = TransferProbe(*[await actors.measure_transfer(pair[0].index, pair[1].index, size) for size in sizes])
    num_bytes = run_config.workload.prompt_tokens * float(cluster.model.kv_bytes_per_token)
    # From the pull's start to the end of the flow: the request to the source, then the bytes.
    modelled_s = cluster.control_latency_s + num_bytes / min(spec.hardware.nic_bytes_per_s for spec in pair)
    rate_rps, mean_bytes = run_config.workload.mean_rate_rps, float(num_bytes.mean())
    if scale is None:
        pace = 1.0 if given is None else given
        scale = choose_payload_scale(probe, rate_rps / pace, mean_bytes, float(modelled_s.mean()) * pace)
        chosen = f"payload_scale={scale:g}"
    else:
        pace = choose_dilation(probe, rate_rps, scale * num_bytes, modelled_s)
        chosen = f"dilation={pace:g}"
    wanted = rate_rps / pace * mean_bytes
    run_config.on_status(
        f"KV payloads: moved by {run_config.transfer.name} and verified here at {probe.bytes_per_s / 1e9:.2f} GB/s (64 KiB in "
        f"{probe.small_s * 1e3:.1f} ms), wanted at {wanted / 1e9:.2f} GB/s: {chosen}"
    )
    return Pace(scale, pace, probe.bytes_per_s)
