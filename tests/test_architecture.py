"""Imports go down, each library stays in its place, and every policy has its YAML. Read from the source, nothing imported."""

import ast
import graphlib
import re
import shutil
import sys
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Who may import whom, by the longest prefix of a module's name; its own package is always allowed.
MAY_IMPORT = {
    "emu.run_directory": {"emu.results"},
    "emu.__main__": set(),
    "emu.cli": {
        *("emu.hydra_private", "emu.compose", "emu.config_error", "emu.targets", "emu.progress", "emu.run_directory"),
        *("emu.sweeps", "emu.build", "emu.rehearse", "emu.provisioning", "emu.reproduction", "emu.runtime", "emu.execution"),
        *("emu.results", "emu.compat", "emu.core"),
    },
    "emu": {"emu.library"},
    "emu.library": {
        *("emu.sweeps", "emu.build", "emu.compose", "emu.progress", "emu.run_directory", "emu.rehearse", "emu.runtime"),
        "emu.results",
    },
    "emu.rehearse": {"emu.build", "emu.progress", "emu.runtime", "emu.results"},
    "emu.extras": {"emu.sweeps", "emu.build", "emu.config_error", "emu.core"},
    "emu.sweeps": {
        *("emu.hydra_private", "emu.build", "emu.config_error", "emu.compose", "emu.runtime", "emu.workload"),
        "emu.results",
    },
    "emu.reproduction": {
        *("emu.provisioning", "emu.build", "emu.config_error", "emu.runtime", "emu.results", "emu.compat", "emu.core"),
    },
    "emu.provisioning": {"emu.sweeps", "emu.build", "emu.config_error", "emu.compose", "emu.results", "emu.core"},
    "emu.progress": {"emu.runtime"},
    "emu.compose": {"emu.hydra_node", "emu.hydra_private"},
    "emu.hydra_private": set(),
    "emu.hydra_node": set(),
    "emu.targets": {"emu.compose", "emu.hydra_node"},
    "emu.config_error": {"emu.compose", "emu.targets"},
    "emu.build": {
        *("emu.compose", "emu.config_error", "emu.targets", "emu.runtime", "emu.execution", "emu.transfer", "emu.workload"),
        *("emu.results", "emu.core"),
    },
    "emu.runtime": {"emu.execution", "emu.transfer", "emu.workload", "emu.results", "emu.core"},
    "emu.execution": {"emu.core"},
    "emu.transfer": {"emu.core"},
    "emu.workload": {"emu.core"},
    "emu.results": {"emu.workload", "emu.core"},
    "emu.compat": {"emu.core"},
    "emu.core": set(),
}
PURE = ("emu.core", "emu.compat")  # no clock, no files, no chance
# What everything else may use: of the standard library, and with nothing of emu.
FOUNDATIONS = ("emu.__version__", "emu.install", "emu.files")
MAY_IMPORT = {layer: others if layer in PURE else others | {*FOUNDATIONS} for layer, others in MAY_IMPORT.items()}
MAY_IMPORT |= {layer: {"emu.__version__"} for layer in FOUNDATIONS}
# Inside core each module may import those of lower rows.
CORE_ROWS = [
    {"heterogeneous"},
    {"design"},
    {"cluster", "fit"},
    {"paged_machines"},
    {"machine_kind"},
    {"scheduler", "machine"},
    {"placement", "batching", "decode_batch", "handover", "prompt_queue", "reports", "repurposing"},
    {"kv_cache", "network", "timing", "pools", "codec"},
    {"links", "forecasts"},
    {"forecast"},
    {"attempts", "flow", "fair_share", "sequence"},
    {"facts", "messages", "oracle"},
    {"batch", "request", "specs", "kv_bytes"},
    {"setting", "seeding", "message"},
]
# Where a library may be imported: paths below emu/.
LIBRARIES = {
    "ray": ("runtime/", "transfer/object_store.py"),
    "torch": ("execution/torch_engine/", "transfer/"),
    "hydra": ("hydra_private.py", "compose.py", "config_error.py", "build.py", "sweeps/", "cli/run.py"),
    "omegaconf": ("compose.py", "config_error.py", "build.py", "sweeps/", "cli/run.py"),
}
# What has no public name may change with any release: all of it, and where it is.
PRIVATE = {
    "hydra_private.py": {
        "hydra._internal.callbacks.Callbacks",
        "hydra._internal.config_loader_impl.ConfigLoaderImpl",
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "hydra._internal.utils.get_args_parser",
    },
    "runtime/ray_nodes.py": {"ray._private.utils.estimate_available_memory"},
    "runtime/ray_start.py": {
        "ray._private.ray_constants",
        *(f"ray._raylet.{name}" for name in ("AuthenticationMode", "AuthenticationTokenLoader", "Config", "GcsClient")),
        "ray._raylet.get_authentication_mode",
    },
}
NOT_IN_CORE = {"asyncio", "time", "random", "logging", "threading", "os", "pathlib", "io", "socket", "subprocess", "signal"}
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
# A policy of a group: a concrete class below this folder (or that one) that has this method, with this first parameter.
POLICIES = {
    "placement": ("core/placement or compat/splitwise_sim", "place", "request"),
    "batching": ("core/batching", "next_batch", "prompts"),
    "timing": ("core/timing or compat/splitwise_sim or execution/calibration", "for_machine", "model"),
    "machine": ("core or compat/splitwise_sim", "make_machine", "spec"),
    "workload": ("workload", "build", "seed"),
    "prediction": ("workload/prediction", "apply", "workload"),
    "repurposing": ("core/repurposing", "choose", "pools"),
    "runtime": ("runtime", "run", "run_config"),
    "execution": ("execution/settings", "real_machines", "machines"),
    "transfer": ("transfer", "make", "host"),
}


def violations(root: Path) -> list[str]:
    """What in the repository at `root` goes against the architecture, a line each."""
    trees = {path.relative_to(root / "emu"): parsed(path.read_text()) for path in sorted((root / "emu").rglob("*.py"))}
    lines = []
    for path, tree in trees.items():
        if VAGUE_NAMES & set(path.with_suffix("").parts):
            lines.append(f"emu/{path}: a name that says nothing")
        if len(path.parts) == 1 and path.stem in sys.stdlib_module_names:
            lines.append(f"emu/{path}: named after a module of the standard library")
        lines += (f"emu/{path} imports {name}" for name in imports(tree) if not may_import(path, name))
    classes = {f"{module_name(path)}.{node.name}": node for path, tree in trees.items() for node in classes_of(tree)}
    lines += circles({module_name(path): tree for path, tree in trees.items()})
    lines += doubles(classes)
    functions = {f"{module_name(path)}.{node.name}" for path, tree in trees.items() for node in functions_of(tree)}
    return [*lines, *policy_violations(root, classes, functions)]


@cache
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


@cache
def imports(tree: ast.Module) -> list[str]:
    """The full name of everything imported, wherever in the file."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return names


def may_import(path: Path, name: str) -> bool:
    importer, library = module_name(path), name.split(".")[0]
    if library == "emu":
        layer, imported = layer_of(importer), layer_of(name)
        if layer == imported:
            return layer != "emu.core" or may_import_in_core(importer, name)
        return imported in MAY_IMPORT.get(layer, ())
    if library in LIBRARIES:
        return path.as_posix().startswith(LIBRARIES[library])
    if layer_of(importer) in PURE:
        return library == "numpy" or (library in sys.stdlib_module_names and library not in NOT_IN_CORE)
    return True


def may_import_in_core(importer: str, name: str) -> bool:
    own, other = importer.split(".")[2:3], name.split(".")[2]
    return own == [other] or core_row(other) > core_row(own[0])


def core_row(name: str) -> int:
    for row, members in enumerate(CORE_ROWS):
        if name in members:
            return row
    raise LookupError(f"emu.core.{name} is in no row of CORE_ROWS")


def layer_of(name: str) -> str:
    return ".".join(name.split(".")[:2])


def module_name(path: Path) -> str:
    return ".".join(("emu", *path.with_suffix("").parts)).removesuffix(".__init__")


def private_imports(tree: ast.Module) -> set[str]:
    """What of Hydra and Ray has a part of its name that begins with an underscore."""
    return {name for name in imports(tree) if name.startswith(("hydra.", "ray.")) and "._" in name}


def classes_of(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


def functions_of(tree: ast.Module) -> list[ast.FunctionDef]:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)]


def circles(trees: dict[str, ast.Module]) -> Iterator[str]:
    """Modules that import each other, directly or through others, as they are loaded."""
    imported = {module: {name for name in loaded_with(tree, trees) if name != module} for module, tree in trees.items()}
    sorter = graphlib.TopologicalSorter(imported)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        yield f"import circle: {' -> '.join(error.args[1])}"


def loaded_with(tree: ast.AST, modules: Collection[str]) -> Iterator[str]:
    """The modules that importing this one imports: not those of functions, nor those for the type checker."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        ):
            continue
        if isinstance(node, ast.ImportFrom):
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in modules else str(node.module) for name in names if {name, node.module} & {*modules})
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        else:
            yield from loaded_with(node, modules)


def doubles(classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    """Public classes that have their name twice: one word is one thing."""
    homes: dict[str, list[str]] = {}
    for name, node in classes.items():
        if not node.name.startswith("_"):
            homes.setdefault(node.name, []).append(name.rpartition(".")[0])
    yield from (f"class {name} occurs twice: {', '.join(modules)}" for name, modules in homes.items() if len(modules) > 1)


def policy_violations(root: Path, classes: dict[str, ast.ClassDef], functions: set[str]) -> Iterator[str]:
    targets: dict[str, set[str]] = {}
    for path in sorted((root / "conf").rglob("*.yaml")):
        for target in re.findall(r"^\s*_target_: (\S+)$", path.read_text(), flags=re.MULTILINE):
            targets.setdefault(path.parent.name, set()).add(target)
            if target not in classes and target not in functions:
                yield f"{path.relative_to(root)}: {target} is no class or function of emu"
    for group, (folder, method, first_parameter) in POLICIES.items():
        packages = tuple(".".join(("emu", *Path(path).parts, "")) for path in folder.split(" or "))
        of_group = {name: node for name, node in classes.items() if name.startswith(packages)}
        policies = {name for name, node in of_group.items() if is_policy(node, of_group, method, first_parameter)}
        yield from (f"{name} has no YAML in conf/{group}" for name in sorted(policies - targets.get(group, set())))
        strays = sorted(targets.get(group, set()) - policies)
        yield from (f"conf/{group} has a YAML for {name}, which is no policy of {folder}" for name in strays)


def is_policy(node: ast.ClassDef, classes: dict[str, ast.ClassDef], method: str, first_parameter: str) -> bool:
    if {"Protocol", "ABC"} & base_names(node):
        return False
    lineage = [node, *(other for other in classes.values() if other.name in base_names(node))]
    methods = [item for ancestor in lineage for item in ancestor.body if isinstance(item, ast.FunctionDef)]
    return any(item.name == method and len(item.args.args) > 1 and item.args.args[1].arg == first_parameter for item in methods)


def base_names(node: ast.ClassDef) -> set[str]:
    return {base.id for base in node.bases if isinstance(base, ast.Name)}


def test_the_repository_keeps_its_architecture():
    assert violations(ROOT) == []


def test_what_is_private_of_hydra_and_ray_stands_in_few_places():
    trees = {path.relative_to(ROOT / "emu").as_posix(): parsed(path.read_text()) for path in (ROOT / "emu").rglob("*.py")}
    found = {path: private_imports(tree) for path, tree in trees.items()}
    assert {path: names for path, names in found.items() if names} == PRIVATE


@pytest.fixture
def copy(tmp_path):
    """A copy of the sources that a test may spoil."""
    for folder in ("emu", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize(
    ("path", "line", "violation"),
    [
        ("core/scheduler.py", "from emu.runtime.virtual import Virtual", "imports emu.runtime.virtual.Virtual"),
        ("core/timing/curve.py", "import emu.core.machine", "imports emu.core.machine"),
        ("core/pools.py", "from emu.core.placement import jsq", "imports emu.core.placement.jsq"),
        ("core/machine.py", "def now():\n    import time", "imports time"),
        ("core/network.py", "from os import environ", "imports os.environ"),
        ("core/request.py", "import xxhash", "imports xxhash"),
        ("workload/fixed.py", "from emu.results.recorder import Recorder", "imports emu.results.recorder.Recorder"),
        ("results/summary.py", "import emu.build", "imports emu.build"),
        ("results/summary.py", "import ray", "imports ray"),
        ("transfer/settings.py", "from ray.util import state", "imports ray.util.state"),
        ("runtime/virtual.py", "import torch", "imports torch"),
        ("runtime/virtual.py", "from omegaconf import DictConfig", "imports omegaconf.DictConfig"),
        ("build.py", "from emu.__main__ import main", "imports emu.__main__.main"),
        ("core/utils.py", "", "a name that says nothing"),
        ("queue.py", "", "named after a module of the standard library"),
    ],
)
def test_what_goes_against_it_is_found(copy, path, line, violation):
    with (copy / "emu" / path).open("a") as file:
        file.write(f"\n{line}\n")
    separator = " " if violation.startswith("imports") else ": "
    found = [line for line in violations(copy) if not line.startswith("import circle")]
    assert found == [f"emu/{path}{separator}{violation}"]


@pytest.mark.parametrize(
    ("option", "policy"),
    [
        ("placement/jsq", "emu.core.placement.jsq.Jsq"),
        ("batching/fcfs", "emu.core.batching.fcfs.Fcfs"),
        ("timing/profile", "emu.core.timing.profile.ProfileFamily"),
        ("timing/host", "emu.execution.calibration.host.HostTiming"),
        ("machine/paged", "emu.core.paged_machines.PagedMachines"),
        ("workload/trace", "emu.workload.trace.Trace"),
        ("runtime/virtual", "emu.runtime.virtual.Virtual"),
    ],
)
def test_a_policy_without_yaml_is_found(copy, option, policy):
    (copy / "conf" / f"{option}.yaml").unlink()
    assert violations(copy) == [f"{policy} has no YAML in conf/{option.split('/')[0]}"]


def test_modules_that_import_each_other_are_found(copy):
    for path, line in (("files.py", "from emu import install"), ("install.py", "import emu.files")):
        with (copy / "emu" / path).open("a") as file:
            file.write(f"\n{line}\n")
    [circle] = [line for line in violations(copy) if line.startswith("import circle")]
    assert circle in (
        "import circle: emu.files -> emu.install -> emu.files",
        "import circle: emu.install -> emu.files -> emu.install",
    )


def test_a_class_name_that_occurs_twice_is_found(copy):
    with (copy / "emu/core/flow.py").open("a") as file:
        file.write("\n\nclass Machine:\n    pass\n")
    assert violations(copy) == ["class Machine occurs twice: emu.core.flow, emu.core.machine"]


def test_a_yaml_without_policy_is_found(copy):
    (copy / "conf/placement/sticky.yaml").write_text("_target_: emu.core.placement.sticky.Sticky\n")
    (copy / "conf/batching/cache.yaml").write_text("_target_: emu.core.kv_cache.KVCache\n")
    assert violations(copy) == [
        "conf/placement/sticky.yaml: emu.core.placement.sticky.Sticky is no class or function of emu",
        "conf/placement has a YAML for emu.core.placement.sticky.Sticky, "
        "which is no policy of core/placement or compat/splitwise_sim",
        "conf/batching has a YAML for emu.core.kv_cache.KVCache, which is no policy of core/batching",
    ]
