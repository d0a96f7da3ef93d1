"""From a configuration to the objects it describes; the only place that instantiates.

A constructor's signature is the schema of its part of the configuration: keys are its keywords, and the types of their values
are checked against its annotations here. What range a value may have, the constructor says.
"""

import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Protocol, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

from emu import compose as composition
from emu import targets
from emu.config_error import ConfigError, one_line_errors, unknown_key
from emu.core import setting
from emu.core.batching.policy import BatchingPolicy
from emu.core.cluster import Cluster
from emu.core.design import ClusterDesign
from emu.core.fit import largest, never_fits
from emu.core.machine_kind import Capacity, MachineKind
from emu.core.oracle import OutputOracle
from emu.core.placement.direct_decode import DirectDecode
from emu.core.placement.policy import PlacementPolicy
from emu.core.repurposing import RepurposingPolicy
from emu.core.specs import ModelSpec
from emu.core.timing.family import TimingFamily
from emu.execution.settings import Execution, TorchExecution
from emu.results.power import PowerMethod
from emu.results.run_record import RunRecord
from emu.results.settings import MetricsSettings, ResultsSettings
from emu.results.slo import ServiceLevels, SloSettings
from emu.results.verdict import VerdictLimits
from emu.runtime.fault import parse_faults
from emu.runtime.run_config import RunConfig
from emu.transfer.settings import TransferSettings
from emu.workload.prediction import Prediction
from emu.workload.workload import Workload

HYDRA_KEYS = ("_target_", "_convert_")  # those a node may have beside its parameters; all of it is plain data, in any case
MAX_UNASKED_WALL_S = 600.0  # a trace may take so long on the wall clock without anyone having said how much of it is meant
TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    Sequence[float]: "a list of numbers",
    NoneType: "null",
}


class Runtime(Protocol):
    """What every `conf/runtime/*.yaml` describes. `logs_events` is what `results.events=auto` means."""

    name: str
    logs_events: bool
    control_latency_s: float
    report_period_s: float

    def check(self, num_machines: int, transfer: TransferSettings) -> None:
        """Raises ValueError if this host or the cluster to join lacks what `num_machines` machines need."""

    def run(self, run_config: RunConfig) -> RunRecord: ...


class WorkloadSource(Protocol):
    """What every `conf/workload/*.yaml` describes. `skip_impossible`: leave out requests that fit no machine."""

    skip_impossible: bool

    def build(self, seed: int) -> Workload: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, and how it is judged. `notes` are lines to print before it."""

    runtime: Runtime
    run_config: RunConfig
    num_requests: int
    metrics: MetricsSettings
    verdict: VerdictLimits
    service_levels: ServiceLevels
    power: PowerMethod
    results: ResultsSettings
    require_valid: bool
    overwrite: bool
    notes: tuple[str, ...] = ()

    def run(self, **changes: Any) -> RunRecord:
        """Run it, with these fields of its `RunConfig` changed. Raises RunError."""
        return self.runtime.run(replace(self.run_config, **changes))


def compose(overrides: list[str]) -> DictConfig:
    """The configuration with these overrides. Raises ConfigError."""
    with one_line_errors():
        return composition.compose(overrides).config


def compose_run(overrides: list[str]) -> tuple[DictConfig, DictConfig]:
    """The same, and the whole with Hydra's own node. Raises ConfigError."""
    with one_line_errors():
        return composition.compose_run(overrides)


def plain(config: DictConfig) -> dict[str, Any]:
    """The values of a configuration as plain data. Raises ConfigError where one is missing or refers to nothing."""
    with one_line_errors():
        values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        return values


def build(config: DictConfig | dict[str, Any]) -> Plan:
    """The run that `config` describes; a dictionary is its plain values. Raises ConfigError."""
    values = config if isinstance(config, dict) else plain(config)
    with one_line_errors():
        _check_targets(values)
        _check_node("", values, make_plan)
        return make_plan(**_instantiate("", values))


def build_transfer(overrides: list[str]) -> TransferSettings:
    """The transfer alone of the configuration with these overrides. Raises ConfigError."""
    values = plain(compose(overrides))["transfer"]
    with one_line_errors():
        targets.check_targets("transfer", values, TransferSettings, _folders())
        _check_value("transfer", values, TransferSettings)
        return _instantiate("transfer", values)


def _instantiate(place: str, node: Any) -> Any:
    """The object that a node of a checked configuration, at `place` in it, stands for.

    As `hydra.utils.instantiate` of the plain kind, which takes 20 ms for a whole configuration. Raises ConfigError.
    """
    if isinstance(node, list):
        return [_instantiate(f"{place}[{index}]", item) for index, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    prefix = f"{place}." if place else ""
    values = {key: _instantiate(f"{prefix}{key}", value) for key, value in node.items() if key not in HYDRA_KEYS}
    if "_target_" not in node:
        return values
    try:
        return pkgutil.resolve_name(node["_target_"])(**values)
    except ValueError as error:
        raise error if isinstance(error, ConfigError) else ConfigError(_as_typed(str(error), place, values)) from error


def _as_typed(text: str, place: str, values: dict[str, Any]) -> str:
    """An error line of a constructor, which knows its group's name and not its place, with the key that the user types."""
    found = re.match(r"(\w+)\.(\w+)", text)
    return f"{place}.{found[2]}{text[found.end() :]}" if found and found[2] in values else text


def make_plan(
    model: ModelSpec,
    cluster: ClusterDesign,
    machine: MachineKind,
    timing: TimingFamily,
    workload: WorkloadSource,
    prediction: Prediction,
    placement: PlacementPolicy,
    batching: BatchingPolicy,
    repurposing: RepurposingPolicy,
    runtime: Runtime,
    execution: Execution,
    transfer: TransferSettings,
    metrics: MetricsSettings,
    verdict: VerdictLimits,
    slo: SloSettings,
    power: PowerMethod,
    results: ResultsSettings,
    seed: int,
    faults: list,
    require_valid: bool,
    overwrite: bool,
) -> Plan:
    """A run from the parts of the configuration, which are these parameters. Raises ValueError, the text for the user."""
    seed = setting.whole("seed", seed, 0)
    real = execution if isinstance(execution, TorchExecution) else None
    if real is not None:
        wall_clock: Any = runtime  # it refuses one that is not
        real.check_runtime(wall_clock, transfer.payload_scale)
    requests = prediction.apply(workload.build(seed), seed)
    notes = _notes(requests, runtime)
    # The overflow of placement=splitwise may by chance prefill and decode on one machine: not to be relied on.
    both_phases = bool(faults) or getattr(placement, "decodes_where_prefilled", False)
    requests = _possible(requests, largest(cluster.machines(), model, machine, both_phases), workload.skip_impossible)
    if metrics.warmup_s > requests.arrival_s[-1]:
        raise ConfigError(
            f"metrics.warmup_s={metrics.warmup_s:g}: no request would count; "
            f"expected at most the last one's arrival, {requests.arrival_s[-1]:.4g} s"
        )
    if isinstance(placement, DirectDecode) and requests.predicted_output_tokens is None:
        raise ConfigError("placement=direct_decode needs predicted output lengths: set prediction=noisy")
    if machine.wants_oracle:
        asking: Any = machine  # `MachineKind` tells of its `consult`
        machine = asking.consult(OutputOracle(requests.output_tokens.tolist()))
    power.check(model)
    names = [name for name, *_ in cluster.machines()]
    planned_faults = tuple(parse_faults(faults, names))
    runtime.check(len(names), transfer)
    if real is not None:
        most_tokens = int((requests.prompt_tokens + requests.output_tokens).max())
        real.check(model, machine, names, most_tokens)
        real.prompts(model, requests.prompt_tokens, requests.prompt_ids, seed)
    # Last: timing=host measures this host for a minute. All that needs no timing is checked by now.
    parts = Cluster(
        model=model,
        machines=cluster.build(model, timing, machine),
        kind=machine,
        placement=placement,
        batching=batching,
        repurposing=repurposing,
        control_latency_s=runtime.control_latency_s,
        report_period_s=runtime.report_period_s,
        layerwise_min_tokens=transfer.layerwise_min_tokens,
        contention=transfer.contention,
        layers_per_piece=transfer.layers_per_piece,
        timing=timing.provenance,
    )
    if real is not None and not getattr(runtime, "address", ""):
        real.check_host(parts)
    service_levels = ServiceLevels.of(slo, timing, model)
    run_config = RunConfig(
        cluster=parts,
        workload=requests,
        seed=seed,
        transfer=transfer,
        max_drain_s=metrics.max_drain_s,
        overrun_s=verdict.late_s,
        faults=planned_faults,
        execution=execution,
    )
    settings = (metrics, verdict, service_levels, power, results, require_valid, overwrite)
    return Plan(runtime, run_config, len(requests), *settings, notes)


def _notes(workload: Workload, runtime: Runtime) -> tuple[str, ...]:
    """What a trace's file holds, and how long it takes on the wall clock. Raises ConfigError where nobody chose so long."""
    origin = workload.origin
    if origin is None:
        return ()
    if runtime.name != "ray":
        return (origin.line(),)
    asked: float | str = getattr(runtime, "dilation", 1.0)
    wall_s = float(workload.arrival_s[-1]) * (1.0 if isinstance(asked, str) else asked)
    if wall_s > MAX_UNASKED_WALL_S and math.isinf(origin.duration_s):
        raise ConfigError(
            f"workload.duration_s=inf: the arrivals of {origin.path} take {wall_s / 60:.1f} min of wall time with runtime=ray; "
            "expected workload.duration_s=SECONDS, or runtime=virtual"
        )
    least = "at least " if isinstance(asked, str) else ""
    return origin.line(), f"wall time: {least}{wall_s:,.0f} s until the last arrival (runtime.dilation={asked})"


def _possible(requests: Workload, limits: tuple[Capacity, Capacity], skip: bool) -> Workload:
    """The requests that some machine can hold. Raises ConfigError for others unless they are to be skipped, or none is left."""
    impossible = never_fits(limits, requests.prompt_tokens, requests.output_tokens)
    num_impossible = int(impossible.sum())
    if skip and num_impossible < len(requests):
        return requests.kept(~impossible) if num_impossible else requests
    if not num_impossible:
        return requests
    first = int(impossible.argmax())
    fits = max(limits, key=lambda capacity: capacity.total_tokens)
    otherwise = "" if num_impossible == len(requests) else "; workload.skip_impossible=true goes on without them"
    raise ConfigError(
        f"workload: {num_impossible:,} of {len(requests):,} requests fit no machine of their phase, first request {first} with "
        f"{requests.prompt_tokens[first]:,} prompt and {requests.output_tokens[first]:,} output tokens; expected prompts of at "
        f"most {fits.prompt_tokens:,} tokens, and {fits.total_tokens:,} with their outputs{otherwise}"
    )


# --- what a configuration may hold ------------------------------------------------------------------------------------


def _check_targets(values: dict[str, Any]) -> None:
    """Check every node before the first is made, and what is none of make_plan's parameters too. Raises TargetError."""
    if targets.TARGET in values:
        raise targets.TargetError(f"{targets.TARGET}={values[targets.TARGET]}: expected plain data, without {targets.TARGET}")
    of_parts = _signature(make_plan).parameters
    for key, value in values.items():
        annotation = of_parts[key].annotation if key in of_parts else None
        targets.check_targets(key, value, annotation, _folders())


@cache
def _folders() -> dict[Any, str]:
    """The groups of `conf/` by the annotation of their part."""
    of_parts = _signature(make_plan).parameters
    return {part.annotation: name for name, part in of_parts.items() if (composition.CONF_DIR / name).is_dir()}


def _check_node(place: str, node: dict[str, Any], target: Callable[..., Any]) -> None:
    """Check the keys of `node`, and the types of their values, against the parameters of `target`. Raises ConfigError."""
    parameters = _signature(target).parameters
    prefix = f"{place}." if place else ""
    for key, value in node.items():
        if key in parameters:
            _check_value(f"{prefix}{key}", value, parameters[key].annotation)
        elif key not in HYDRA_KEYS:
            raise ConfigError(unknown_key(f"{prefix}{key}", list(parameters), node.get("_target_")))
    for key, parameter in parameters.items():
        if key not in node and parameter.default is parameter.empty:
            raise ConfigError(f"{prefix}{key} is required: set {prefix}{key}=...")


def _check_value(key: str, value: Any, annotation: Any) -> None:
    types = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    if value is None and NoneType in types:
        return
    is_mapping = get_origin(types[0]) in (dict, Mapping)
    if isinstance(value, dict) and "_target_" in value:
        _check_node(key, value, pkgutil.resolve_name(value["_target_"]))
    elif all(type_ in TYPE_NAMES for type_ in types):
        if not any(_is_a(value, type_) for type_ in types):
            raise ConfigError(f"{key}={value}: expected {' or '.join(TYPE_NAMES[type_] for type_ in types)}")
    elif is_mapping and isinstance(value, dict):
        for name, item in value.items():
            _check_value(f"{key}.{name}", item, get_args(types[0])[1])
    elif is_mapping or (inspect.isclass(annotation) and not isinstance(value, dict)):
        raise ConfigError(f"{key}={value}: expected an option of this group, or settings below it")


@cache
def _signature(target: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(target, eval_str=True)


def _is_a(value: Any, type_: Any) -> bool:
    if get_origin(type_) is Sequence:
        return isinstance(value, list) and all(_is_a(item, get_args(type_)[0]) for item in value)
    if isinstance(value, bool):
        return type_ is bool
    return isinstance(value, {int: Integral, float: Real}.get(type_, type_))
