"""What a class makes for a parameter fits that parameter, and what it never makes does not."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule
from groupwise.errors import OptimizerError, StateError
from groupwise.optim.fitting import check_shapes

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"momentum": 0.9}),
    ("Adam", {"amsgrad": True}),
    ("AdamW", {}),
    ("AdamW", {"amsgrad": True}),
    ("NAdam", {}),
    ("RAdam", {}),
    ("Adamax", {}),
    ("Adadelta", {}),
    ("Adagrad", {}),
    ("Adafactor", {}),
    ("ASGD", {}),
    ("Rprop", {}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
    ("Muon", {}),
]
classes = pytest.mark.parametrize(
    ("algorithm", "values"), OPTIONS, ids=lambda x: x if isinstance(x, str) else "+".join(x)
)
SHAPES = ((), (1,), (5,), (4, 6), (1, 6), (3, 4, 5), (2, 3, 3, 2))
WRONG: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "one entry of each row": lambda t: t[..., :1],
    "one row": lambda t: t[:1],
    "one number in as many dimensions": lambda t: t.flatten()[:1].reshape((1,) * t.ndim),
    "a number": lambda t: t.flatten()[0],
    "a flat one": lambda t: t.flatten(),
    "a transposed one": lambda t: t.t() if t.ndim == 2 else t,
    "one row more": lambda t: torch.cat([t, t[:1]]),
    "one dimension more": lambda t: t[None],
    "none at all": lambda t: t[:0],
}


def made(algorithm: str, values: dict[str, Any], shape: tuple[int, ...]) -> tuple[torch.Tensor, dict[str, Any]]:
    """A parameter, and what the class keeps of it after two steps; nothing if it refuses such parameters."""
    p = nn.Parameter(torch.ones(shape))
    try:
        optimizer = getattr(torch.optim, algorithm)([p], **values)
    except ValueError:
        return p, {}
    for _ in range(2):
        p.grad = torch.ones(shape)
        optimizer.step()
    return p, optimizer.state[p]


@classes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_a_class_makes_fits(algorithm: str, values: dict[str, Any], shape: tuple[int, ...]) -> None:
    p, state = made(algorithm, values, shape)
    check_shapes("p", p, state, algorithm)


@classes
@pytest.mark.parametrize("shape", [(5,), (4, 6), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_an_entry_of_any_other_shape_does_not_fit(
    algorithm: str, values: dict[str, Any], shape: tuple[int, ...], wrong: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    p, state = made(algorithm, values, shape)
    usual = made(algorithm, {}, shape)[1].keys()
    for key, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or tensor.ndim == 0 or wrong(tensor).shape == tensor.shape:
            continue
        if key not in usual and wrong(tensor).ndim == 0:
            continue  # of an option: torch itself takes a number for the maximum of amsgrad, and enlarges it
        with pytest.raises(StateError, match=rf"'p' has shape .* but '{key}' in the checkpoint has"):
            check_shapes("p", p, {**state, key: wrong(tensor)}, algorithm)


@pytest.mark.parametrize("shape", [(1, 6), (4, 1), (1, 1), (1,), (), (0, 6), (6, 4), (24,)], ids=str)
@pytest.mark.parametrize("algorithm", ["SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "Adafactor"])
def test_a_checkpoint_with_moments_of_another_parameter_is_not_loaded(algorithm: str, shape: tuple[int, ...]) -> None:
    given = {"momentum": 0.9} if algorithm == "SGD" else {}
    net = nn.Linear(6, 4, bias=False)
    optimizer = GroupedOptimizer(net, Plan([Rule("*", optimizer=algorithm, lr=0.1, **given)]))
    net.weight.grad = torch.ones(4, 6)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    for key, value in saved["state"][0].items():
        if isinstance(value, torch.Tensor) and value.ndim > 0:
            saved["state"][0][key] = torch.ones(shape)
    before = dict(optimizer.state[net.weight])
    if algorithm == "SGD" and shape == ():  # which is for the step to refuse, as it is of torch's own
        optimizer.load_state_dict(saved)
        with pytest.raises(RuntimeError, match="shape"):
            optimizer.step()
        return
    with pytest.raises(StateError, match=r"'weight' has shape \(4, 6\), but .* in the checkpoint has"):
        optimizer.load_state_dict(saved)
    assert all(optimizer.state[net.weight][key] is value for key, value in before.items())


def test_the_rows_and_columns_of_adafactor_are_no_shapes_for_others() -> None:
    p, state = made("Adafactor", {}, (4, 6))
    with pytest.raises(StateError, match=r"'exp_avg' in the checkpoint has \(4, 1\)"):
        check_shapes("p", p, {"step": state["step"], "exp_avg": state["row_var"]}, "AdamW")


def test_of_other_classes_only_what_is_certain_is_refused() -> None:
    """GaLore's moments are of low rank, an eight-bit class keeps a scale for each block."""
    p = nn.Parameter(torch.ones(64, 32))
    check_shapes("p", p, {"exp_avg": torch.ones(4, 32), "absmax": torch.ones(8)}, "somewhere:Class")
    with pytest.raises(StateError, match=r"'exp_avg' in the checkpoint has \(65, 32\)"):
        check_shapes("p", p, {"exp_avg": torch.ones(65, 32)}, "somewhere:Class")


@classes
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_model_that_changes_its_dtype_after_its_first_step_steps_as_torchs_or_is_named_with_a_way_out(
    algorithm: str, values: dict[str, Any], dtype: torch.dtype
) -> None:
    plan = Plan([Rule("*", optimizer=algorithm, lr=1e-2, **values)])

    def retyped(build: Callable[[nn.Module], torch.optim.Optimizer]) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Linear(4, 3, bias=False)
        optimizer = build(model)
        for target in (torch.float32, dtype):
            model.to(target)
            model.weight.grad = torch.ones_like(model.weight)
            if target != dtype:
                optimizer.step()
        return model, optimizer

    twin, plain = retyped(lambda model: getattr(torch.optim, algorithm)(model.parameters(), lr=1e-2, **values))
    model, optimizer = retyped(lambda model: GroupedOptimizer(model, plan))
    try:
        plain.step()
    except RuntimeError:
        now = str(dtype).removeprefix("torch.")
        with pytest.raises(OptimizerError, match=rf"'weight' is {now} now, and its state is float32.*load_state_dict"):
            optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
        return
    optimizer.step()
    assert torch.equal(model.weight, twin.weight)
