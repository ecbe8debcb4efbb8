"""The public face is what the design says: every name exists, is documented, and nothing else leaks."""

import importlib
import inspect
import subprocess
import sys
from importlib import metadata
from types import ModuleType

import pytest

import groupwise
from tests.house.tree import SOURCE

DESIGNED = {
    "groupwise": "Plan Rule scale layer_decay exact clip_norm clip_value clip_adaptive steps epochs percent "
    "after until unfreeze_down fan_in fan_out blocks trust_ratio update_ratio gradient_share Parts GroupwiseError "
    "GroupwiseWarning __version__ GroupedOptimizer PlanScheduler Balancer Observer audit probe",
    "groupwise.select": "name regex kind inside role ndim shape size depth network tag magnitude statistic where",
    "groupwise.schedules": "constant linear cosine exponential polynomial inverse_sqrt step_decay multi_step "
    "triangular one_cycle cosine_restarts warmup_stable_decay piecewise function",
    "groupwise.plan": "Plan Rule",
    "groupwise.optim": "GroupedOptimizer PlanScheduler parameters_of resolve",
    "groupwise.balance": "Balancer BalanceResult FromLosses FromGramian FromJacobian Equal Static LogSum "
    "GeometricMean Uncertainty RevisedUncertainty IMTL_L DWA RLW CoV STCH FAMO GradNorm GradientNormScaling MGDA "
    "PCGrad GradVac CAGrad IMTL_G NashMTL FairGrad AlignedMTL UPGrad DualProj ConFIG PCD GCS RandomWeights GradDrop "
    "MetaBalance ExcessMTL MoCo Smoothed Periodic Normalized AutoLambda DBMTL compare",
    "groupwise.testing": "laws_of check Law",
    "groupwise.adopt": "adopt Adopted",
    "groupwise.audit": "audit watch Finding",
    "groupwise.probing": "probe ProbeResult",
    "groupwise.report": "build describe",
    "groupwise.observe": "Observer",
    "groupwise.records": "read Run Writer Header Step Event",
    "groupwise.keras": "GroupedOptimizer BalancedModel",
}
FACE = set(DESIGNED["groupwise"].split())

packages = pytest.mark.parametrize(
    "package",
    ["groupwise", *sorted(f"groupwise.{path.parent.name}" for path in SOURCE.glob("*/__init__.py"))],
)


def public(package: str) -> tuple[ModuleType, set[str]]:
    module = importlib.import_module(package)
    return module, set(module.__all__)


def test_the_face_has_no_name_beyond_the_design() -> None:
    names = set(groupwise.__all__)
    assert names <= FACE, f"not in the design: {sorted(names - FACE)}"


@pytest.mark.parametrize("package", DESIGNED)
def test_a_package_has_the_names_of_the_design(package: str) -> None:
    _, names = public(package)
    missing = set(DESIGNED[package].split()) - names
    assert not missing, f"{package} lacks {sorted(missing)}"


@packages
def test_every_public_name_is_defined(package: str) -> None:
    module, names = public(package)
    undefined = [name for name in sorted(names) if getattr(module, name, None) is None]
    assert not undefined


@packages
def test_every_public_name_is_shown_and_no_other_is_made_up(package: str) -> None:
    module, names = public(package)
    assert names <= set(dir(module))
    with pytest.raises(AttributeError, match="no attribute 'No'"):
        module.No  # noqa: B018


@packages
def test_no_name_is_listed_twice(package: str) -> None:
    module, names = public(package)
    assert len(module.__all__) == len(names)


@packages
def test_no_name_of_ours_leaks(package: str) -> None:
    module, names = public(package)
    leaks = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in names and _is_ours(value) and not inspect.ismodule(value)
    ]
    assert not leaks, f"{package} shows {leaks} and does not list them in __all__"


@packages
def test_every_public_name_is_documented(package: str) -> None:
    module, names = public(package)
    bare = [
        name for name in sorted(names) if _is_ours(getattr(module, name)) and not _documented(getattr(module, name))
    ]
    assert not bare, f"{package}: no docstring on {bare}"


def test_the_face_lists_its_lazy_names() -> None:
    assert set(dir(groupwise)) >= FACE


@pytest.mark.parametrize("name", sorted(path.parent.name for path in SOURCE.glob("*/__init__.py")))
def test_every_package_is_there_after_the_import_of_the_face(name: str) -> None:
    if name != "cli":  # the command line is a program, not a package to be used
        assert name in dir(groupwise)
        assert getattr(groupwise, name) is importlib.import_module(f"groupwise.{name}")


def test_a_package_is_there_without_an_import_of_its_own() -> None:
    code = (
        "import groupwise; groupwise.Balancer; print(groupwise.balance.PCGrad.__name__, groupwise.plan.Plan.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "PCGrad Plan\n"


def test_the_version_is_that_of_what_is_installed() -> None:
    assert groupwise.__version__ == metadata.version("groupwise")


def test_a_name_that_the_face_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="GroupedOptimiser"):
        _ = groupwise.GroupedOptimiser


def test_rule_takes_the_arguments_of_the_design() -> None:
    parameters = inspect.signature(groupwise.Rule).parameters
    names = ["match", "label", "optimizer", "trainable", "clip", "optional", "extra", "hyperparameters"]
    assert list(parameters) == names
    assert parameters["match"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert parameters["label"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["hyperparameters"].kind is inspect.Parameter.VAR_KEYWORD


def test_plan_takes_the_arguments_of_the_design() -> None:
    assert list(inspect.signature(groupwise.Plan).parameters)[:3] == ["rules", "clip", "values"]
    assert {"load", "loads", "dump", "dumps", "resolve", "__add__"} <= set(dir(groupwise.Plan))


def test_the_optimizer_and_the_scheduler_are_torchs() -> None:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    assert issubclass(groupwise.GroupedOptimizer, Optimizer)
    assert issubclass(groupwise.PlanScheduler, LRScheduler)


def _is_ours(value: object) -> bool:
    return callable(value) and (getattr(value, "__module__", None) or "").startswith("groupwise")


def _documented(value: object) -> bool:
    text = (getattr(value, "__doc__", None) or "").strip()
    made_by_dataclass = text.startswith(f"{getattr(value, '__name__', '')}(")
    return bool(text) and not made_by_dataclass
