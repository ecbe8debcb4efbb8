"""Factors of shape: closed forms on real layers, the published tables, and what has no such size."""

import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from groupwise import GroupedOptimizer, Plan, Rule, blocks, exact, fan_in, fan_out, layer_decay, scale
from groupwise.errors import GroupwiseError, PlanError, ResolutionError
from groupwise.optim import resolve
from groupwise.schedules import linear
from groupwise.select import role

BASE = Rule("*", optimizer="AdamW", lr=1e-2, weight_decay=0.1)
widths = st.integers(1, 40)


class Conv1D(nn.Module):
    """GPT-2's: a dense layer whose weight is (in, out)."""

    def __init__(self, out: int, into: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(into, out)), nn.Parameter(torch.zeros(out))


class GPT(nn.Module):
    """The parameters of EleutherAI's nanoGPT-mup, its tied head included."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(7, width), nn.Embedding(5, width)
        self.h = nn.ModuleList(self.block(width) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)

    @staticmethod
    def block(width: int) -> nn.ModuleDict:
        return nn.ModuleDict({
            "ln_1": nn.LayerNorm(width), "c_attn": nn.Linear(width, 3 * width), "c_proj": nn.Linear(width, width),
            "ln_2": nn.LayerNorm(width), "c_fc": nn.Linear(width, 4 * width), "mlp_proj": nn.Linear(4 * width, width),
        })  # fmt: skip


def settings_of(model: nn.Module, *rules: Rule) -> dict[str, dict[str, Any]]:
    """What each parameter gets."""
    resolution = resolve(model, Plan(list(rules)))
    return {i.name: {k: s.at(0) for k, s in g.settings.items()} for g in resolution.groups for i in g.parameters}


@given(widths, widths, st.sampled_from([-1.0, -0.5, 0.5, 1.0]), st.integers(1, 64))
def test_the_factor_is_the_ratio_to_the_power(into: int, out: int, power: float, base: int) -> None:
    model = nn.Linear(into, out)
    found = settings_of(model, BASE, Rule("weight", lr=fan_in(base, power), weight_decay=scale(fan_out(base, power))))
    assert found["weight"]["lr"] == pytest.approx(1e-2 * (into / base) ** power, rel=1e-15)
    assert found["weight"]["weight_decay"] == pytest.approx(0.1 * (out / base) ** power, rel=1e-15)
    assert found["bias"]["lr"] == 1e-2


LAYERS: dict[str, tuple[nn.Module, str, int, int]] = {
    "linear": (nn.Linear(6, 4), "weight", 6, 4),
    "convolution": (nn.Conv2d(6, 4, (3, 5)), "weight", 90, 60),
    "grouped convolution": (nn.Conv1d(6, 4, 3, groups=2), "weight", 9, 12),
    "GPT-2's Conv1D": (Conv1D(4, 6), "weight", 6, 4),
    "recurrent": (nn.GRU(6, 4), "weight_ih_l0", 6, 12),
    "fused attention": (nn.MultiheadAttention(6, 2), "in_proj_weight", 6, 18),
}


@pytest.mark.parametrize(("layer", "name", "into", "out"), LAYERS.values(), ids=LAYERS)
def test_fans_are_those_of_the_layers_class(layer: nn.Module, name: str, into: int, out: int) -> None:
    found = settings_of(layer, BASE, Rule(name, lr=fan_in(2), weight_decay=fan_out(2)))
    assert found[name]["lr"] == pytest.approx(1e-2 * 2 / into)
    assert found[name]["weight_decay"] == pytest.approx(0.1 * 2 / out)
    if name == "weight" and not isinstance(layer, Conv1D):
        fans = nn.init._calculate_fan_in_and_fan_out(layer.get_parameter(name))
        assert (into, out) == fans


def test_a_table_has_its_width_as_fan_out_and_a_vector_its_length() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(100, 8), "norm": nn.LayerNorm(8), "fc": nn.Linear(8, 4)})
    found = settings_of(model, BASE, Rule("*", weight_decay=fan_out(2)))
    lengths = {"embed.weight": 8, "norm.weight": 8, "norm.bias": 8, "fc.weight": 4, "fc.bias": 4}
    assert {n: v["weight_decay"] for n, v in found.items()} == pytest.approx({n: 0.2 / k for n, k in lengths.items()})


def test_a_stack_of_experts_has_the_fan_in_of_the_axis_that_is_named() -> None:
    model = nn.ModuleDict({"experts": nn.ParameterDict({"up": torch.zeros(5, 6, 7)}), "head": nn.Linear(6, 2)})
    assert settings_of(model, BASE, Rule("experts.up", lr=fan_in(3, axis=1)))["experts.up"]["lr"] == 1e-2 / 2
    with pytest.raises(ResolutionError, match=r"'experts.up', of shape \(5, 6, 7\) in a .* does not say its fan-in"):
        settings_of(model, BASE, Rule("experts.up", lr=fan_in(3)))


def test_blocks_are_the_levels_that_the_rule_matches() -> None:
    model = GPT(4, depth=6)
    found = settings_of(model, BASE, Rule("h.*", lr=blocks(2, power=-0.5)))
    assert found["h.3.c_fc.weight"]["lr"] == pytest.approx(1e-2 * 3**-0.5)
    assert found["wte.weight"]["lr"] == 1e-2


def test_factors_of_shape_obey_the_cascade() -> None:
    model = nn.Linear(8, 8, bias=False)
    halved = Rule("*", label="halved", lr=fan_in(4))
    untouched = Rule("*", label="untouched", lr=exact(0.3))
    falling = Rule("*", label="falling", lr=linear(1.0, over="9 steps"))

    def rate(*rules: Rule) -> Any:
        return settings_of(model, BASE, *rules)["weight"]["lr"]

    assert rate(halved, Rule("*", lr=scale(0.1))) == pytest.approx(5e-4)
    assert rate(untouched, halved) == 0.15
    assert rate(falling, halved) == 0.5
    assert settings_of(model, BASE, Rule("*", eps=fan_in(4)))["weight"]["eps"] == 0.5e-8
    with pytest.raises(ResolutionError, match="'halved' has no effect: everything that it declares is overridden"):
        rate(halved, untouched)


def test_the_table_and_explain_show_the_ratio_and_groups_are_called_by_the_size() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 2))
    resolution = resolve(model, Plan([BASE, Rule(role("weight"), label="wide", lr=fan_in(4))]))
    assert [group.name for group in resolution.groups] == ["base", "wide/fan_in 8", "wide/fan_in 16"]
    assert "0.01 × (8/4)^-1" in str(resolution)
    assert "fan_in(4, power=-1)  [factor]" in str(resolution.explain("0.weight"))


@given(st.sampled_from([fan_in, fan_out, blocks]), st.sampled_from([1, 256, 0.5]), st.sampled_from([-1, 1.0, 0.5]))
def test_a_factor_of_shape_survives_a_file_and_a_pickle(make: Any, base: float, power: float) -> None:
    for factor in (make(base, power), scale(0.5) * make(base, power), make(base, power) * layer_decay(0.5)):
        plan = Plan([BASE, Rule("*", lr=factor, eps=factor)])
        assert Plan.loads(plan.dumps()) == plan
        assert pickle.loads(pickle.dumps(plan)) == plan


def test_in_a_file_the_power_is_minus_one_if_it_is_left_out() -> None:
    text = '[[rule]]\nmatch = "*"\nlr = { fan_in = 256, axis = 0 }\n'
    assert Plan.loads(text) == Plan([Rule("*", lr=fan_in(256, axis=0))])


BAD: dict[str, tuple[str, str]] = {
    "two": ("{ fan_in = 256, fan_out = 3 }", r"a table holds one of fan_in, fan_out: write a rule for each"),
    "a power alone": (
        "{ scale = 2, power = 3 }",
        r"power belongs to one of fan_in, fan_out, blocks, and the table has",
    ),
    "an axis of blocks": ("{ blocks = 2, axis = 3 }", r"axis belongs to a fan_in or a fan_out"),
    "no size": ("{ fan_in = 0 }", r"fan_in's base is a size above 0, not 0"),
    "no number": ("{ fan_in = true }", r"fan_in's base must be a finite number, not True"),
    "half an axis": ("{ fan_in = 2, axis = 0.5 }", r"fan_in's axis is a whole number, not 0.5"),
}


@pytest.mark.parametrize(("table", "match"), BAD.values(), ids=BAD)
def test_a_table_that_cannot_be_meant_is_refused(table: str, match: str) -> None:
    with pytest.raises(PlanError, match=match):
        Plan.loads(f'[[rule]]\nmatch = "*"\nlr = {table}\n')


NONE: dict[str, tuple[nn.Module, Rule, str]] = {
    "a table": (nn.Embedding(5, 3), Rule("*", lr=fan_in(2)), "is a table of rows, which is looked up: it has no fan-"),
    "a vector": (nn.Linear(2, 2), Rule("*", lr=fan_in(2)), r"'bias', of shape \(2,\), multiplies no vector"),
    "a transposed convolution": (nn.ConvTranspose2d(2, 2, 2), Rule("weight", lr=fan_in(2)), "does not say its fan-in"),
    "another rank": (nn.Linear(2, 2), Rule("weight", lr=fan_in(2, axis=2)), r"shape \(2, 2\), and no axis 2"),
    "an overflow": (nn.Linear(2, 2), Rule("weight", lr=fan_in(1e-200, 2)), "is too large a number"),
}


@pytest.mark.parametrize(("model", "rule", "match"), NONE.values(), ids=NONE)
def test_a_parameter_without_such_a_size_is_refused_by_name(model: nn.Module, rule: Rule, match: str) -> None:
    with pytest.raises(GroupwiseError, match=match):
        resolve(model, Plan([BASE, rule]))


@pytest.mark.parametrize("width", [16, 64])
def test_rates_are_those_of_tensor_programs_v_table_3_for_adam(width: int) -> None:
    """Input weights and biases 1, hidden weights 1 / fan-in, output weights 1 / fan-in, relative to the base width."""
    model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, width), nn.Linear(width, 5))
    found = settings_of(model, BASE, Rule(["1.weight", "2.weight"], lr=fan_in(16)))
    ratio = width / 16
    expected = {"0.weight": 1, "0.bias": 1, "1.weight": 1 / ratio, "1.bias": 1, "2.weight": 1 / ratio, "2.bias": 1}
    assert {name: values["lr"] / 1e-2 for name, values in found.items()} == pytest.approx(expected)


@pytest.mark.parametrize("width", [16, 64])
def test_rates_are_those_of_tensor_programs_v_table_3_for_sgd(width: int) -> None:
    """Input weights and biases fan-out, hidden weights 1, output weights 1 / fan-in."""
    model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, width), nn.Linear(width, 5, bias=False))
    found = settings_of(
        model, Rule("*", optimizer="SGD", lr=1e-2), Rule(["0", "1.bias"], lr=fan_out(16, 1)), Rule("2", lr=fan_in(16))
    )
    ratio = width / 16
    expected = {"0.weight": ratio, "0.bias": ratio, "1.weight": 1, "1.bias": ratio, "2.weight": 1 / ratio}
    assert {name: values["lr"] / 1e-2 for name, values in found.items()} == pytest.approx(expected)


COMPLETE_P = """
[[rule]]
match = "*"
optimizer = "AdamW"
lr = 0.01
eps = 1e-8
weight_decay = 0.1

[[rule]]
label = "no decay"
match = { ndim = 1 }
weight_decay = 0.0

[[rule]]
label = "width"
match = ["h.*.c_attn.weight", "h.*.c_proj.weight", "h.*.c_fc.weight"]
lr = { fan_in = 16, power = -1 }
weight_decay = { fan_in = 16, power = 1 }

[[rule]]
label = "width of the second layer of a block's MLP"
match = "h.*.mlp_proj.weight"
lr = { fan_in = 64, power = -1 }
weight_decay = { fan_in = 64, power = 1 }

[[rule]]
match = ["wte", "wpe", "ln_f", "*.ln_?.*", "*_proj.*"]
eps = { fan_out = 16, power = -1 }

[[rule]]
match = "*.c_attn.*"
eps = { fan_out = 48, power = -1 }

[[rule]]
match = "*.c_fc.*"
eps = { fan_out = 64, power = -1 }

[[rule]]
label = "depth"
match = "h.*"
eps = { blocks = 2, power = -1 }
"""


@pytest.mark.parametrize(("width", "depth"), [(16, 2), (64, 6), (32, 3)])
def test_a_plan_has_the_rates_eps_and_decay_of_completep(width: int, depth: int) -> None:
    """Dey et al. 2025, alpha = 1, as the groups of EleutherAI/nanoGPT-mup have it (model.py, configure_optimizers)."""
    model = GPT(width, depth)
    wide, deep = width / 16, depth / 2
    resolution = resolve(model, Plan.loads(COMPLETE_P))
    for group in resolution.groups:
        for info in group.parameters:
            hidden, matrix = info.name.startswith("h."), info.ndim == 2
            lr = 0.01 / wide if hidden and matrix else 0.01
            decay = 0.0 if not matrix else 0.1 * wide if hidden else 0.1
            eps = 1e-8 / wide / (deep if hidden else 1)
            expected = {"lr": lr, "weight_decay": decay, "eps": eps}
            assert {k: s.at(0) for k, s in group.settings.items()} == pytest.approx(expected, rel=1e-12), info.name


def test_a_step_uses_the_factors() -> None:
    model = nn.Linear(8, 1, bias=False)
    before = model.weight.detach().clone()
    optimizer = GroupedOptimizer(model, Plan([Rule("*", optimizer="SGD", lr=1.0), Rule("*", lr=fan_in(4))]))
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    assert torch.equal(model.weight, before - 0.5)
