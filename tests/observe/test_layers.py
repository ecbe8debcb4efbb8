"""`by="layer"`: the same statistics under the names of the modules, whatever the optimizer."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from groupwise import GroupedOptimizer, Observer, Plan, Rule, clip_norm
from groupwise.errors import RecordError
from groupwise.observe.layers import layer_of
from groupwise.records import read
from groupwise.report import describe
from tests.observe.nets import ALL, grouped, net, plan, train

LAYERS = ["embed", "body.0", "body.2", "left", "right", "frozen"]


def split(model: nn.Module) -> list[dict[str, Any]]:
    """Weights and biases in two groups, without names of parameters."""
    params = list(model.parameters())
    return [
        {"params": [p for p in params if p.ndim < 2], "lr": 0.02, "name": "biases"},
        {"params": [p for p in params if p.ndim > 1], "lr": 0.01, "name": "weights"},
    ]


@pytest.mark.parametrize("way", ["model", "param_names", "plan"])
def test_layers_are_modules_in_the_order_of_the_model(way: str, tmp_path: Path) -> None:
    model = net()
    if way == "model":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(split(model))
    elif way == "param_names":
        optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01)
    else:
        model, optimizer = grouped()
    given = {"model": model} if way == "model" else {}
    with Observer(optimizer, tmp_path, by="layer", every=ALL, **given) as observer:
        train(model, optimizer, observer, 2)
    run = read(tmp_path)
    assert run.header.by == "layer"
    assert [group.name for group in run.groups] == LAYERS
    assert run.names("groups")[:5] == LAYERS[:5]
    assert [group.tensors for group in run.groups] == [1, 2, 2, 2, 2, 2]
    assert set(run.names("groups", "body.0")) >= {"grad_norm", "update_ratio", "contribution", "weight_norm"}


def test_a_layer_s_statistics_are_those_of_its_own_tensors(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(split(model))
    with Observer(optimizer, tmp_path, by="layer", every=ALL, model=model) as observer:
        train(model, optimizer, observer, 1)
    layer, record = model.body[0], observer.last
    assert record is not None
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    norms = [layer.weight.grad.double().norm().item(), layer.bias.grad.double().norm().item()]
    assert record.groups["body.0"]["grad_norm"] == pytest.approx(math.hypot(*norms), rel=1e-5)
    update = math.hypot(0.01 * norms[0], 0.02 * norms[1])  # each part at the rate of its own group
    assert record.groups["body.0"]["update_norm"] == pytest.approx(update, rel=1e-4)
    total = 2 * math.hypot(*norms) ** 2  # step size is a root mean square over both parts
    assert record.groups["body.0"]["step_size"] ** 2 * 56 == pytest.approx(total / 2, rel=1e-4)


def test_the_rule_of_a_layer_is_the_group_of_its_parameters(tmp_path: Path) -> None:
    model = net()
    Observer(torch.optim.SGD(split(model)), tmp_path, by="layer", model=model).close()
    rules = {group.name: group.rule for group in read(tmp_path).groups}
    assert rules["embed"] == "weights"
    assert rules["body.0"] == "biases, weights"


def test_a_clip_per_module_has_each_layer_s_own_factor(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    rule = Rule("*", optimizer="SGD", lr=0.0, clip=clip_norm(1.0, per="module"))
    optimizer = GroupedOptimizer(model, Plan([rule]))
    with Observer(optimizer, tmp_path, by="layer") as observer:
        for p, size in zip(model.parameters(), (2.0, 0.0, 0.0, 0.1), strict=True):
            p.grad = torch.zeros_like(p)
            p.grad.view(-1)[0] = size
        optimizer.step()
    assert observer.last is not None
    factors = [observer.last.groups[name]["clip_factor"] for name in ("0", "1")]
    assert factors == pytest.approx([0.5, 1.0], rel=1e-4)


def test_without_names_the_error_says_what_to_give(tmp_path: Path) -> None:
    model = net()
    with pytest.raises(RecordError, match=r"needs the names .* 11 of the 11 tensors of SGD have none: .*model=model"):
        Observer(torch.optim.SGD(split(model)), tmp_path, by="layer")
    with pytest.raises(RecordError, match=r"9 of the 11 tensors of SGD are not in the model that was given"):
        Observer(torch.optim.SGD(split(model)), tmp_path, by="layer", model=model.left)
    with pytest.raises(RecordError, match=r"model= is a torch.nn.Module, .* not list"):
        Observer(torch.optim.SGD(split(model)), tmp_path, by="layer", model=[model])  # type: ignore[arg-type]
    with pytest.raises(RecordError, match=r"model= is for by='layer'.*by='group' does not use it"):
        Observer(torch.optim.SGD(split(model)), tmp_path, model=model)


def test_networks_by_name_are_the_first_part_of_a_layer_s_name(tmp_path: Path) -> None:
    networks = {"actor": nn.Sequential(nn.Linear(2, 2)), "critic": nn.Sequential(nn.Linear(2, 1))}
    params = [p for network in networks.values() for p in network.parameters()]
    Observer(torch.optim.SGD(params, lr=0.1), tmp_path, by="layer", model=networks).close()
    assert [group.name for group in read(tmp_path).groups] == ["actor.0", "critic.0"]


def test_parametrized_and_root_parameters_have_the_layer_that_holds_them() -> None:
    names = [name for name, _ in nn.Sequential(weight_norm(nn.Linear(2, 2))).named_parameters()]
    assert {layer_of(name) for name in names} == {"0"}
    assert layer_of("cls_token") == layer_of("parametrizations.weight.original0") == "(root)"


@pytest.mark.parametrize("planned", [False, True])
def test_the_report_draws_the_layers(planned: bool, tmp_path: Path) -> None:
    model = net(sparse=planned)
    optimizer = GroupedOptimizer(model, plan()) if planned else torch.optim.AdamW(model.named_parameters(), lr=0.01)
    with Observer(optimizer, tmp_path, by="layer", every=ALL) as observer:
        train(model, optimizer, observer, 12)
    run = describe(tmp_path).runs[0]
    (panel,) = (panel for panel in run.panels if panel.key == "layers")
    assert [figure.title for figure in panel.figures] == [
        "Gradient norm of each layer",
        "Update over weight of each layer",
        "Contribution of each layer",
    ]
    assert "layers" in dict(run.facts)
