"""What is done for speed at a save and at a load is equal to what torch does, and to composing every name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule
from groupwise.optim.contents import Contents
from groupwise.optim.loaded_state import with_state_of, without_parameters
from groupwise.optim.saving import packed, with_names


def model() -> nn.Module:
    """Layers with and without parameters, some of one kind, one that holds many, one that is None."""
    made = nn.Module()
    made.a = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2, bias=False))
    made.b = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    made.many = nn.ParameterList(torch.zeros(1) for _ in range(20))
    made.register_module("none", None)
    return made


def names(of: nn.Module) -> list[tuple[str, int]]:
    return [(name, id(p)) for name, p in of.named_parameters(remove_duplicate=False)]


def _renamed(of: Any, old: str, new: str) -> None:
    p = getattr(of, old)
    delattr(of, old)
    of.register_parameter(new, p)


def _moved(of: Any) -> None:
    layer = of.b._modules.pop("1")
    of.b._modules["x"] = layer


def _first_of_b(of: Any) -> None:
    """The last layer of `a` is the first of `b`: the names and tensors of a level follow one another as before."""
    layer = of.a._modules.pop("2")
    of.b._modules = {"2": layer, **of.b._modules}


def _same_tensors(of: Any) -> None:
    other = nn.Linear(2, 2)
    other.weight, other.bias = of.b[0].weight, of.b[0].bias
    of.b[0] = other


CHANGES: dict[str, Callable[[Any], object]] = {
    "nothing": lambda of: None,
    "an equal tensor": lambda of: setattr(of.a[0], "bias", nn.Parameter(of.a[0].bias.detach().clone())),
    "a tensor more": lambda of: of.a[1].register_parameter("scale", nn.Parameter(torch.ones(1))),
    "a tensor less": lambda of: delattr(of.a[0], "bias"),
    "a tensor that is None now": lambda of: setattr(of.a[0], "bias", None),
    "another name": lambda of: _renamed(of.a[2], "weight", "weight_orig"),
    "another name, one among many": lambda of: _renamed(of.many, "3", "x"),
    "another tensor among many": lambda of: of.many.__setitem__(3, nn.Parameter(torch.zeros(1))),
    "a layer in a layer": lambda of: setattr(of.a[0], "adapter", nn.Linear(2, 2)),
    "a layer where none was": lambda of: setattr(of, "none", nn.Linear(2, 2)),
    "a layer less": lambda of: of.b.__delitem__(1),
    "a layer by another name": _moved,
    "a layer of another parent": _first_of_b,
    "two layers that have changed places": lambda of: of._modules.update(a=of.b, b=of.a),
    "another layer without parameters": lambda of: of.a.__setitem__(1, nn.Tanh()),
    "another layer with the same tensors": _same_tensors,
}


@pytest.mark.parametrize("change", CHANGES)
def test_contents_are_the_same_if_and_only_if_every_name_and_tensor_is(change: str) -> None:
    made = model()
    contents, before = Contents([made]), names(made)
    held = [*made.parameters()]  # as groups hold them, so that no tensor takes the place of another in memory
    CHANGES[change](made)
    assert contents.are_those_of([made]) == (names(made) == before)
    del held


def test_many_modules_side_by_side_are_all_looked_at() -> None:
    made = nn.ModuleList(nn.Linear(1, 1) for _ in range(1200))
    contents = Contents([made])
    assert contents.are_those_of([made])
    held = made[1150].bias
    made[1150].bias = nn.Parameter(torch.zeros(1))
    assert not contents.are_those_of([made])
    del held


def trained(*rules: Rule, plain: bool = False) -> GroupedOptimizer:
    made = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer = GroupedOptimizer(made, Plan([Rule("*", optimizer="AdamW", lr=0.1), *rules]))
    made(torch.ones(2)).backward()
    if plain:
        made[0].bias.grad = None
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(trained, id="one group"),
        pytest.param(lambda: trained(Rule("1.*", optimizer="Adagrad", lr=0.1)), id="two algorithms"),
        pytest.param(lambda: trained(Rule("0.*", lr=0.2), Rule("2.*", lr=0.3)), id="three groups"),
        pytest.param(lambda: trained(plain=True), id="a parameter without state"),
    ],
)
def test_what_is_saved_is_torchs_layout_with_names(optimizer: Callable[[], GroupedOptimizer]) -> None:
    made = optimizer()
    reference = with_names(torch.optim.Optimizer.state_dict(made), made.param_groups)
    found = packed(made.param_groups, made.state)
    assert found is not None
    assert [*found["state"]] == [*reference["state"]]
    assert all(found["state"][i] is reference["state"][i] or not reference["state"][i] for i in found["state"])
    assert found["param_groups"] == reference["param_groups"]
    assert [[*group] for group in found["param_groups"]] == [[*group] for group in reference["param_groups"]]


def test_what_a_hook_puts_into_a_checkpoint_is_saved() -> None:
    made = trained()
    made.register_state_dict_post_hook(lambda _, saved: {**saved, "extra": 1})
    assert made.state_dict()["extra"] == 1


class Kept(torch.optim.Optimizer):
    """Keeps whatever state it is given."""

    def step(self, closure: Any = None) -> None:
        """Does nothing."""


def test_state_is_cast_as_torch_casts_it() -> None:
    params = [nn.Parameter(torch.ones(2, dtype=torch.float64)), nn.Parameter(torch.ones(3))]
    flags = [{"params": [p], "capturable": capturable} for p, capturable in zip(params, (False, True), strict=True)]
    reference = Kept(flags, {})
    half = torch.tensor([0.1, 0.2], dtype=torch.float16)
    state = {
        0: {"step": torch.tensor(3.0, dtype=torch.float16), "m": half, "n": {"x": half, "step": half}, "k": (half, 2)},
        1: {"step": torch.tensor(3.0, dtype=torch.float16), "count": 5, "mask": torch.tensor([True])},
        "of nobody": {"y": half},
    }
    layout = {"state": state, "param_groups": reference.state_dict()["param_groups"]}
    reference.load_state_dict(layout)
    bare = without_parameters(layout)
    assert [*bare["state"]] == ["of nobody"]
    found = with_state_of(reference.param_groups, bare["state"], layout)
    assert found["of nobody"] == reference.state["of nobody"]
    assert [_plain(found[p]) for p in params] == [_plain(reference.state[p]) for p in params]


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, dict):
        return {key: _plain(held) for key, held in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value
