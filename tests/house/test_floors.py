"""Arrows point downward: who may import whom, read from the syntax trees."""

import ast
import sys
from collections.abc import Iterator, Mapping

import pytest

from tests.house.tree import Module, source

FACE = "the face"
BELOW = {"select", "schedules", "plan", "presets", "records"}  # floor 1
ACT = {"look", "optim", "balance", "observe", "audit", "report"}  # floors 2 and 2'
DOORS = {"integrations", "demos", "cli"}  # floor 4, which nobody below imports: these alone may use the face

MAY: Mapping[str, set[str]] = {
    "errors": set(),
    "select": set(),
    "schedules": set(),
    "records": set(),
    "plan": {"select", "schedules"},
    "presets": {"plan", "select", "schedules"},
    "look": {"select"},
    "optim": {"plan", "look", "select", "schedules"},
    "balance": {"schedules"},
    "observe": {"records"},
    "audit": {"look", "select"},
    "report": {"records"},
    "adopt": BELOW | {"look", "optim", "audit"},
    "checkpoint": BELOW | ACT,
    "testing": BELOW | ACT,
    "probing": BELOW | ACT,
    "keras": BELOW,
    "integrations": BELOW | ACT,
    "demos": BELOW | ACT,
    "__main__": {"cli"},
    "cli": BELOW | ACT | {"adopt", "checkpoint", "probing", "testing", "keras"} | DOORS,
}

THIRD_PARTY: Mapping[str, set[str]] = {  # besides the standard library; a package that is not listed has none
    "_torch": {"torch"},
    "_formats": {"yaml"},  # only the file form that the `yaml` extra is for
    "_ranks": {"torch"},
    "_shards": {"torch"},
    "_step_hooks": {"torch"},
    "_weakly": {"torch"},
    "look": {"torch"},
    "optim": {"torch"},
    "balance": {"torch"},
    "observe": {"torch", "mlflow"},  # mlflow: one sink, imported when it is made
    "audit": {"torch"},
    "report": {"plotly", "rich", "matplotlib"},
    "adopt": {"torch"},
    "checkpoint": {"torch"},
    "testing": {"torch", "pytest", "hypothesis"},
    "probing": {"torch", "rich", "matplotlib"},
    "keras": {"keras"},
    "integrations": {"torch", "lightning", "transformers", "accelerate"},
    "demos": {"torch", "rich", "sklearn"},
    "cli": {"torch", "rich", "typer", "click", "matplotlib", "plotly"},
}

everywhere = pytest.mark.parametrize("module", source(), ids=lambda module: module.name)


def ours(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """Each of our packages that the module imports, with the place; `FACE` for what is taken from the face."""
    for node, target in module.imports():
        root, _, rest = target.partition(".")
        if root == "groupwise":
            package = rest.partition(".")[0]
            yield node, package if package in MAY or package.startswith("_") else FACE


@everywhere
def test_every_package_has_a_floor(module: Module) -> None:
    known = module.package in MAY or module.package == "" or module.package.startswith("_")
    assert known, f"{module.path}: {module.package} stands in no row of the table of floors"


@everywhere
def test_a_package_imports_only_what_lies_below_it(module: Module) -> None:
    if not module.package:
        return  # the face shows every floor, the torch-backed ones lazily: see test_light_import
    allowed = MAY.get(module.package, set()) | {"errors", module.package}
    allowed |= {FACE} if module.package in DOORS else set()
    wrong = [
        f"{module.at(node)}: {module.package} imports {package}"
        for node, package in ours(module)
        if package not in allowed and not package.startswith("_")
    ]
    assert not wrong, "\n".join(wrong)


@everywhere
def test_a_package_stands_on_the_libraries_of_its_floor_alone(module: Module) -> None:
    allowed = THIRD_PARTY.get(module.package, set()) | {"groupwise", "__future__"} | sys.stdlib_module_names
    wrong = [
        f"{module.at(node)}: {module.package or 'the face'} imports {target}"
        for node, target in module.imports()
        if target.partition(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_cycle_not_even_of_types() -> None:
    graph = {module.name: _edges(module) for module in source()}
    done: set[str] = set()
    for start in graph:
        cycle = _cycle(start, graph, [], done)
        assert not cycle, " -> ".join(cycle)


def _edges(module: Module) -> list[str]:
    names = {other.name for other in source()}
    targets = module.all_imports()
    modules = (target if target in names else target.rpartition(".")[0] for target in targets)
    return sorted({name for name in modules if name in names and name != module.name})


def _cycle(name: str, graph: Mapping[str, list[str]], trail: list[str], done: set[str]) -> list[str]:
    if name in trail:
        return [*trail[trail.index(name) :], name]
    if name in done:
        return []
    for target in graph[name]:
        if found := _cycle(target, graph, [*trail, name], done):
            return found
    done.add(name)
    return []
