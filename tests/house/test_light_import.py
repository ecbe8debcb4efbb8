"""Describing costs nothing: floor 1 and the face load the standard library and ourselves, nothing else."""

import json
import subprocess
import sys

import pytest

from tests.house.tree import SOURCE

PACKAGES = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
PLAN = """
[[rule]]
match = "*"
optimizer = "AdamW"
lr = { cosine = 3e-4, warmup = "5%" }
clip = { norm = 1.0 }

[[rule]]
match = { role = ["norm", "bias"] }
weight_decay = 0.0
"""


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after `code`."""
    report = "\nimport json, sys\nsys.stdout.write(json.dumps([*sys.modules]))"
    command = [sys.executable, "-W", "error", "-c", code + report]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def loaded(code: str) -> set[str]:
    """The top-level packages among them that are neither ours nor of the standard library."""
    packages = {name.partition(".")[0] for name in modules_after(code)}
    return packages - sys.stdlib_module_names - {"groupwise", "__main__"}


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import groupwise", id="the face"),
        pytest.param("import groupwise.select", id="select"),
        pytest.param("import groupwise.schedules", id="schedules"),
        pytest.param("import groupwise.plan", id="plan"),
        pytest.param("import groupwise.records", id="records"),
        pytest.param("from groupwise import Plan, Rule, scale, exact, clip_norm, steps, after", id="eager names"),
        pytest.param(f"import groupwise\ngroupwise.Plan.loads({PLAN!r})", id="parsing"),
        pytest.param(f"import groupwise\ngroupwise.Plan.loads({PLAN!r}).dumps()", id="writing"),
    ],
)
def test_describing_loads_neither_torch_nor_any_other_library(code: str) -> None:
    assert loaded(code) == loaded("")


def test_a_torch_backed_name_of_the_face_loads_torch_on_first_use() -> None:
    assert "torch" in loaded("import groupwise\ngroupwise.GroupedOptimizer")


@pytest.mark.parametrize("package", ["optim", "balance"])
def test_a_package_of_torch_loads_it_for_its_names_alone(package: str) -> None:
    assert loaded(f"import groupwise.{package}") == loaded("")


@pytest.mark.parametrize(
    ("code", "needless"),
    [
        pytest.param("import groupwise", {*PACKAGES}, id="the face"),
        pytest.param("from groupwise import Plan, Rule", {*PACKAGES} - {"plan", "select", "schedules"}, id="Plan"),
        pytest.param("from groupwise import Balancer", {*PACKAGES} - {"balance", "schedules"}, id="Balancer"),
        pytest.param("from groupwise import Observer", {*PACKAGES} - {"observe", "records"}, id="Observer"),
        pytest.param(
            "from groupwise import GroupedOptimizer, PlanScheduler",
            {*PACKAGES} - {"plan", "select", "schedules", "look", "optim"},
            id="GroupedOptimizer",
        ),
    ],
)
def test_a_name_loads_the_packages_that_it_needs_and_no_other(code: str, needless: set[str]) -> None:
    modules = {name.split(".")[1] for name in modules_after(code) if name.startswith("groupwise.")}
    assert not modules & needless


def test_a_balancer_loads_no_method_and_no_reader_of_files_before_it_is_asked_for_one() -> None:
    modules = modules_after("from groupwise import Balancer")
    assert not [name for name in modules if name.startswith("groupwise.balance.methods.")]
    assert not {"groupwise.balance.comparing", "groupwise._formats", "tomllib"} & modules


SLOW = {"torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp", "torch.distributed.checkpoint"}
"""What takes torch seconds to import, and few programs need."""

RESOLVED = """
import torch
from torch import nn
from groupwise import Plan, Rule
from groupwise.optim import resolve
from groupwise.select import kind
layers = [nn.Linear(2, 2) for _ in range(12)] + [nn.Embedding(3, 2, sparse=True)]
names = "Adadelta Adafactor Adagrad Adam AdamW Adamax ASGD Muon NAdam RAdam RMSprop SGD".split()
rules = [Rule("*", optimizer="Rprop", lr=0.1), Rule(kind("Embedding"), optimizer="SparseAdam", lr=0.1)]
rules += [Rule(f"{i}.weight", optimizer=name, lr=0.1) for i, name in enumerate(names)]
resolve(nn.Sequential(*layers), Plan(rules))
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("from groupwise import Balancer, GroupedOptimizer, Observer", id="import"),
        pytest.param(RESOLVED, id="resolve"),
    ],
)
def test_what_is_slow_in_torch_is_imported_by_those_who_need_it(code: str) -> None:
    assert not SLOW & modules_after(code)
