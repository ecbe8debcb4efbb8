"""A preset on a model that it is not for: the error says what it expected, and what roles there are."""

from collections.abc import Callable
from pathlib import Path

import pytest

from groupwise.presets import misfit, names, preset
from groupwise.select import parameters_of
from tests.cli.commands import run
from tests.presets import models

HERE = "tests.presets.models"
MISFITS = [
    ("llm-muon", models.resnet, "conv (20)"),
    ("llm-muon", models.splats, "scalar"),
    ("moe-muon", models.llama, "matrix (14 tensors), norm (5), embedding (1), head (1)"),
    ("nanochat", models.llama, "matrix (14 tensors)"),
    ("vit-finetune", models.resnet, "conv (20)"),
    ("detr", models.yolo, "conv"),
    ("yolo", models.splats, "scalar"),
    ("bert", models.gaussians, "scalar"),
    ("lora", models.bert, "bias"),
    ("lora-plus", models.llama, "matrix"),
    ("gan", models.agent, "matrix"),
    ("actor-critic", models.gan, "conv"),
    ("gaussian-splatting", models.resnet, "conv (20)"),
    ("clip", models.bert, "embedding"),
    ("multi-task", models.resnet, "conv (20)"),
    ("gradual-unfreezing", models.sac, "head"),
    ("recommender", models.resnet, "conv (20)"),
    ("recommender", models.llama, "embedding (1)"),
]


def test_there_is_a_misfit_for_every_preset() -> None:
    assert {name for name, *_ in MISFITS} == set(names())


@pytest.mark.parametrize(
    ("name", "build", "found"), MISFITS, ids=[f"{name}-{build.__name__}" for name, build, _ in MISFITS]
)
def test_the_error_says_what_was_expected_and_what_there_is(
    name: str, build: Callable[[], models.Model], found: str, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.toml"
    assert run("new", name, "-o", plan).exit_code == 0
    done = run("show", plan, "--model", f"{HERE}:{build.__name__}")
    assert done.exit_code == 2
    expected = preset(name).expects.rstrip(".")
    assert f"the plan began as the preset '{name}', which expects {expected}; this model has roles " in done.stderr
    assert found in done.stderr
    assert preset(name).fits.rstrip(".") in done.stderr


def test_a_plan_that_began_as_none_is_refused_as_ever(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(preset("moe-muon").file)
    done = run("show", plan, "--model", f"{HERE}:resnet")
    assert done.exit_code == 2
    assert "matches no parameter" in done.stderr
    assert "began as" not in done.stderr


def test_a_preset_that_there_is_no_more_is_not_asked_for(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text("# groupwise new of-old\n" + preset("moe-muon").file)
    assert "began as" not in run("show", plan, "--model", f"{HERE}:resnet").stderr


def test_roles_are_counted_the_most_frequent_first() -> None:
    said = misfit(preset("moe-muon"), parameters_of(models.qwen2()))
    assert "this model has roles matrix (14 tensors), bias (6), norm (5), embedding (1), head (1)" in said


def test_a_model_without_roles_is_said_to_have_none() -> None:
    assert "this model has no parameter with a role besides weight" in misfit(preset("bert"), ())
