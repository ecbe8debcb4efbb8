"""What layers put out: against a forward by hand, at a bounded cost, and without a trace in the model."""

import copy
import gc
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from groupwise.errors import RecordError
from groupwise.observe import Observer
from groupwise.report import describe

EVERY = {"weights": 2}


class Plain(nn.Sequential):
    """Rectifiers as modules."""

    def __init__(self, between: list[nn.Module] | None = None) -> None:
        super().__init__(nn.Linear(8, 16), *(between or []), nn.ReLU(), nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 1))

    def rectified(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        first, second, _ = (layer for layer in self if isinstance(layer, nn.Linear))
        a = first(x).relu()
        return {name_of(self, first): a, name_of(self, second): second(a).relu()}


class Functional(nn.Module):
    """Rectifiers as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(8, 16), nn.Linear(16, 10), nn.Linear(10, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.three(F.relu(self.two(F.relu(self.one(x)))))  # type: ignore[no-any-return]

    def rectified(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        a = self.one(x).relu()
        return {"one": a, "two": self.two(a).relu()}


class Convolutional(nn.Sequential):
    """Channels are units."""

    def __init__(self) -> None:
        super().__init__(nn.Conv1d(1, 6, 3), nn.ReLU(), nn.Conv1d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x[:, None])  # type: ignore[no-any-return]

    def rectified(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        a = self[0](x[:, None]).relu()
        return {name: out.movedim(1, -1) for name, out in {"0": a, "2": self[2](a).relu()}.items()}


def name_of(model: nn.Module, layer: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is layer)


MODELS = [Plain, Functional, Convolutional, lambda: Plain([nn.Dropout(0.0)])]


def trained(model: nn.Module, folder: Path | None, steps: int = 1, **given: Any) -> Observer:
    """Train and record activations."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with Observer(optimizer, folder, by="layer", model=model, **{"every": EVERY, "activations": True, **given}) as seen:
        for step in range(steps):
            torch.manual_seed(step)
            loss = model(torch.randn(32, 8)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            seen.log(loss=loss)
            optimizer.step()
    return seen


def kill(model: nn.Module, layer: str, units: int) -> None:
    """Have the first units of a layer never fire."""
    with torch.no_grad():
        model.get_submodule(layer).bias[:units] = -100.0  # type: ignore[index]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("units", [0, 3])
def test_size_and_dead_units_are_those_of_a_forward_by_hand(make: Any, units: int) -> None:
    torch.manual_seed(1)
    model = make()
    layer = next(name for name, module in model.named_modules() if hasattr(module, "bias"))
    kill(model, layer, units)
    torch.manual_seed(0)
    x = torch.randn(32, 8)
    expected = model.rectified(x)
    last = trained(model, None).last
    assert last is not None
    for name, out in expected.items():
        dead = (out.flatten(0, -2) == 0).all(0).float().mean().item()
        assert last.groups[name]["dead_units"] == pytest.approx(dead)
        assert last.groups[name]["activation_rms"] > 0
    assert last.groups[layer]["dead_units"] >= units / 16
    assert sum("dead_units" in own for own in last.groups.values()) == 2  # nothing follows the last layer


def test_the_size_is_the_root_mean_square_of_what_the_layer_puts_out() -> None:
    model = Functional()
    torch.manual_seed(0)
    out = model.one(torch.randn(32, 8))
    last = trained(model, None).last
    assert last is not None
    assert last.groups["one"]["activation_rms"] == pytest.approx(out.square().mean().sqrt().item(), rel=1e-5)


class Operations(TorchDispatchMode):
    """Counts operations."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("layers", [2, 8])
def test_the_cost_is_a_few_operations_a_layer_when_it_is_due_and_none_when_it_is_not(layers: int) -> None:
    model = nn.Sequential(*(module for _ in range(layers) for module in (nn.Linear(8, 8), nn.ReLU())))
    x = torch.randn(4, 8)
    with Operations() as plain:
        model(x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Observer(optimizer, None, by="layer", model=model, activations=True, every=EVERY):
        for due in (True, False):
            with Operations() as observed:
                model(x)
            more = observed.count - plain.count
            assert 0 < more <= 12 * layers if due else more == 0
            optimizer.step()


def test_only_forwards_that_train_are_looked_at_and_the_first_of_them_counts() -> None:
    model = Functional()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Observer(optimizer, None, by="layer", model=model, activations=True) as observer:
        with torch.no_grad():
            model(1e6 * torch.ones(4, 8))
        model.eval()(1e6 * torch.ones(4, 8))
        model.train()(torch.ones(4, 8)).sum().backward()
        model(1e6 * torch.ones(4, 8))
        optimizer.step()
    assert observer.last is not None
    assert observer.last.groups["one"]["activation_rms"] < 100


def test_nothing_of_the_model_changes_and_its_copies_are_not_looked_at() -> None:
    model = Functional()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    observer = Observer(optimizer, None, by="layer", model=model, activations=True)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other(torch.ones(4, 8)).sum().backward()
    optimizer.step()
    assert observer.last is not None
    assert "activation_rms" not in observer.last.groups["one"]
    observer.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_activations_keep_no_model_alive() -> None:
    model = Functional()
    observer = Observer(torch.optim.SGD(model.parameters(), lr=0.0), None, by="layer", model=model, activations=True)
    watched = observer._recorder._activations
    assert watched is not None
    model(torch.ones(4, 8))
    observer.close()
    del model
    gc.collect()
    assert not watched._names


def test_activations_without_layers_are_refused() -> None:
    model = Functional()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.raises(RecordError, match=r"there is by='group': give .*by='layer', model=model"):
        Observer(optimizer, None, activations=True)
    named = torch.optim.SGD(model.named_parameters(), lr=0.0)  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="there is no model"):
        Observer(named, None, by="layer", activations=True)


@pytest.mark.parametrize("units", [0, 2, 8, 14])
def test_the_report_names_a_layer_of_dead_units_with_its_share(units: int, tmp_path: Path) -> None:
    model = Functional()
    kill(model, "one", units)
    trained(model, tmp_path, 40)
    run = describe(tmp_path).runs[0]
    said = [sentence for sentence in run.verdict if sentence.rule == "dead"]
    assert bool(said) == (units >= 4)
    for sentence in said:
        assert sentence.head.startswith(f"{100 * units / 16:.0f} % of the units of 'one' are dead"), sentence.head
        assert sentence.tone == "look"
    (panel,) = (panel for panel in run.panels if panel.key == "layers")
    assert {"Size of each layer's activations", "Dead units of each layer"} <= {
        figure.title for figure in panel.figures
    }
