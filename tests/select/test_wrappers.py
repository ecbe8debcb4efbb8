"""What merely surrounds a model does not show in names, roles or depth."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from groupwise.select import parameters_of, regex, select
from tests.select.models import EVERY, ViT

every_model = pytest.mark.parametrize("build", EVERY.values(), ids=EVERY.keys())


class DistributedDataParallel(nn.Module):
    """Holds the model at `module`, as torch's does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class DeepSpeedEngine(DistributedDataParallel):
    """DeepSpeed's."""


class FullyShardedDataParallel(nn.Module):
    """Holds the model where FSDP does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._fsdp_wrapped_module = module


class CheckpointWrapper(nn.Module):
    """Holds the layer where activation checkpointing does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._checkpoint_wrapped_module = module


def compiled(model: nn.Module) -> nn.Module:
    """What `torch.compile` returns; its first call imports parts of torch that torch itself has deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return torch.compile(model)


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DistributedDataParallel": DistributedDataParallel,
    "DeepSpeedEngine": DeepSpeedEngine,
    "FullyShardedDataParallel": FullyShardedDataParallel,
    "CheckpointWrapper": CheckpointWrapper,
    "torch.compile": compiled,
    "torch DataParallel": nn.DataParallel,
    "torch AveragedModel": torch.optim.swa_utils.AveragedModel,
    "two at once": lambda model: DistributedDataParallel(compiled(model)),
}
every_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())


@every_wrapper
@every_model
def test_a_wrapper_does_not_show(build: Callable[[], nn.Module], wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = build()
    bare, wrapped = parameters_of(model), parameters_of(wrap(model))
    assert wrapped == bare


@every_wrapper
def test_a_wrapper_inside_the_model_does_not_show_either(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = ViT()
    bare = parameters_of(model)
    model.blocks = nn.ModuleList(wrap(block) for block in model.blocks)
    model.head = wrap(model.head)
    assert parameters_of(model) == bare


def test_a_submodule_of_the_users_called_module_keeps_its_name() -> None:
    class PreNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)

    infos = parameters_of(nn.Sequential(PreNorm(), nn.Linear(2, 2)))
    assert [info.name for info in infos][:2] == ["0.module.weight", "0.module.bias"]


def test_what_a_wrapper_carries_itself_is_not_lost() -> None:
    wrapper = DistributedDataParallel(nn.Linear(2, 2))
    wrapper.scale = nn.Parameter(torch.ones(1))
    assert [info.name for info in parameters_of(wrapper)] == ["scale", "module.weight", "module.bias"]
    wrapper = DistributedDataParallel(nn.Linear(2, 2))
    wrapper.loss = nn.Linear(2, 1)
    assert len(parameters_of(wrapper)) == 4


def test_wrappers_in_a_mapping_do_not_show() -> None:
    model = ViT(1)
    wrapped = {"student": DistributedDataParallel(model)}
    assert [i.names for i in parameters_of(wrapped)] == [i.names for i in parameters_of({"student": model})]


def test_a_parametrized_weight_goes_by_its_plain_name_too() -> None:
    model = nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(4, 4)), parametrizations.weight_norm(nn.Linear(4, 4))
    )
    infos = parameters_of(model)
    assert [info.name for info in select("0.weight", infos)] == ["0.parametrizations.weight.original"]
    assert [info.name for info in select("*.weight", infos)] == [
        "0.parametrizations.weight.original", "1.parametrizations.weight.original0",
        "1.parametrizations.weight.original1",
    ]  # fmt: skip
    assert [info.name for info in select(regex(r"1\.weight_[gv]"), infos)] == [
        "1.parametrizations.weight.original0", "1.parametrizations.weight.original1",
    ]  # fmt: skip
    assert {info.name for info in infos} == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("wrap", "leaf", "ends"),
    [
        (prune.identity, "weight", ("_orig",)),
        (prune.identity, "bias", ("_orig",)),
        (nn.utils.spectral_norm, "weight", ("_orig",)),
        (nn.utils.weight_norm, "weight", ("_g", "_v")),
    ],
    ids=["pruned weight", "pruned bias", "spectral norm", "weight norm"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_what_a_hook_computes_a_tensor_from_goes_by_that_tensors_name_too(
    wrap: Callable[[nn.Module, str], nn.Module], leaf: str, ends: tuple[str, ...]
) -> None:
    plain, wrapped = nn.Linear(4, 4), nn.Linear(4, 4)
    wrap(wrapped, leaf)
    infos = parameters_of(nn.Sequential(wrapped))
    made = [f"0.{leaf}{end}" for end in ends]
    assert [info.name for info in select(f"*.{leaf}", infos)] == made
    assert {info.name for info in infos} == {name for name, _ in nn.Sequential(wrapped).named_parameters()}
    roles = {info.name: info.roles for info in parameters_of(nn.Sequential(plain))}[f"0.{leaf}"]
    assert roles <= {info.name: info.roles for info in infos}[made[-1]]


def test_a_parameter_beside_one_of_a_like_name_keeps_to_its_own() -> None:
    model = nn.Module()
    model.rate, model.rate_orig, model.size_g = (nn.Parameter(torch.zeros(3)) for _ in range(3))
    assert not any(info.aliases for info in parameters_of(model))
