"""Describing costs nothing: floor 1 and the face load the standard library and ourselves, nothing else."""

import json
import subprocess
import sys

import pytest

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


def loaded(code: str) -> set[str]:
    """The top-level packages, neither ours nor of the standard library, that a fresh interpreter holds after `code`."""
    report = "\nimport json, sys\nsys.stdout.write(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    command = [sys.executable, "-W", "error", "-c", code + report]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout)) - sys.stdlib_module_names - {"groupwise", "__main__"}


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
