"""What a resolution is good for: a table to read, plain torch groups to leave with, names that stay."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from groupwise import Plan, Rule, clip_norm, clip_value, exact, layer_decay, scale
from groupwise.errors import ResolutionError
from groupwise.optim import parameters_of, resolve
from groupwise.schedules import cosine, linear, steps
from groupwise.select import ndim, role
from tests.plan.models import Bert, Net, base, group_of, resolved, text, value

SLOW_BODY = [base(weight_decay=0.05), Rule("backbone.*", lr=scale(0.1)), Rule("backbone.*", lr=layer_decay(0.5))]


def run(optimizer: torch.optim.Optimizer, model: Net, n: int = 3) -> None:
    for seed in range(n):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        model.head(model.norm(model.backbone(model.embed(torch.randint(0, 5, (6,)))))).pow(2).sum().backward()
        optimizer.step()


def copied(model: Net) -> Net:
    twin = Net()
    twin.load_state_dict(model.state_dict())
    return twin


def test_plain_torch_groups_train_as_a_hand_written_list_does() -> None:
    model = Net()
    twin = copied(model)
    written = [
        {"params": twin.backbone[0].parameters(), "lr": 1e-3 * 0.1 * 0.5},
        {"params": twin.backbone[1].parameters(), "lr": 1e-3 * 0.1},
        {"params": [*twin.embed.parameters(), *twin.norm.parameters(), *twin.head.parameters()]},
    ]
    run(torch.optim.AdamW(resolved(model, *SLOW_BODY).torch_groups()), model)
    run(torch.optim.AdamW(written, lr=1e-3, weight_decay=0.05), twin)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, twin.get_parameter(name), rtol=0, atol=0)


def test_plain_torch_groups_hold_absolute_values_that_any_scheduler_multiplies() -> None:
    model = Net()
    resolution = resolved(model, Rule("*", optimizer="SGD", lr=cosine(0.4, warmup="5%"), momentum=0.9), *SLOW_BODY[1:])
    optimizer = torch.optim.SGD(resolution.torch_groups())
    peaks = [0.4, 0.4 * 0.1, 0.4 * 0.1 * 0.5]
    assert sorted((g["lr"] for g in optimizer.param_groups), reverse=True) == pytest.approx(peaks, rel=1e-15)
    scheduler = LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    scheduler.step()
    assert sorted((g["lr"] for g in optimizer.param_groups), reverse=True) == pytest.approx([p / 2 for p in peaks])
    CosineAnnealingLR(optimizer, T_max=10)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}


def test_plain_torch_groups_say_which_algorithm_each_is_for() -> None:
    model = Net()
    resolution = resolved(model, base(), Rule(role("matrix"), optimizer="Muon", lr=0.02, weight_decay=0.0))
    by_algorithm = {name: resolution.torch_groups(name) for name in ("AdamW", "Muon")}
    assert [p.ndim for group in by_algorithm["Muon"] for p in group["params"]] == [2, 2]
    for name, groups in by_algorithm.items():
        run(getattr(torch.optim, name)(groups), model)


def test_plain_torch_groups_of_several_algorithms_are_asked_for_one_by_one() -> None:
    resolution = resolved(Net(), base(), Rule(role("matrix"), optimizer="Muon", lr=0.02, weight_decay=0.0))
    with pytest.raises(ResolutionError, match=r"several algorithms \(AdamW, Muon\).*torch_groups\('AdamW'\)"):
        resolution.torch_groups()
    with pytest.raises(ResolutionError, match="unknown algorithm of this plan 'Adam'; did you mean 'AdamW'"):
        resolution.torch_groups("Adam")


def test_plain_torch_groups_hold_tuples_at_their_peak() -> None:
    resolution = resolved(Net(), base(betas=(linear(0.85, end=0.95), 0.98)))
    assert resolution.torch_groups()[0]["betas"] == (0.95, 0.98)


TABLE = """\
group            algorithm  tensors  parameters  lr                weight_decay  trains
───────────────  ─────────  ───────  ──────────  ────────────────  ────────────  ──────
base             AdamW            5          38  1e-3              0.05          yes
backbone/depth2  AdamW            2          20  1e-3 × 0.1        0.05          yes
backbone/depth1  AdamW            2          20  1e-3 × 0.1 × 0.5  0.05          yes
───────────────  ─────────  ───────  ──────────  ────────────────  ────────────  ──────
3 groups, 9 tensors, 78 parameters"""


def test_the_table_shows_every_group_its_products_and_the_totals() -> None:
    assert str(resolved(Net(), *SLOW_BODY)) == TABLE


def test_the_table_has_clips_freezing_and_what_nothing_optimises() -> None:
    resolution = resolved(
        Net(),
        Rule("*", optimizer="SGD", lr=cosine(0.1, over=steps(9)), clip=clip_norm(1.0)),
        Rule("head", clip=clip_norm(0.5, per="parameter"), label="top"),
        Rule("embed", trainable=False),
        clip=clip_value(2.0),
    )
    lines = str(resolution).splitlines()
    cells = {line.split()[0]: line for line in lines}
    assert "norm 1 (base)" in cells["base"]
    assert "norm 0.5 per parameter (top)" in cells["top"]
    assert cells["embed"].endswith("no")
    assert "cosine(0.1, over=9 steps)" in cells["base"]
    assert lines[-2] == "3 groups, 9 tensors, 78 parameters, 20 of them frozen"
    assert lines[-1] == "clip over everything: value 2"


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        (scale(0.1) * layer_decay(0.75), "1e-3 × 0.1 × 0.75³"),
        (layer_decay(0.75) * scale(0.1), "1e-3 × 0.75³ × 0.1"),
        (scale(1.0), "1e-3"),
        (scale(linear(1.0, end=0.5)), "1e-3 × linear(1, end=0.5)"),
        (scale(lambda info: 1 / 3), "1e-3 × 0.3333"),
        (exact(0.25), "0.25"),
        (exact(cosine(0.25)), "cosine(0.25)"),
    ],
)
def test_a_setting_is_printed_as_the_product_that_it_is(declared: object, shown: str) -> None:
    assert text(resolved(Net(), base(), Rule("*", lr=declared, optional=True)), "embed.weight") == shown


def test_a_superscript_may_have_many_digits() -> None:
    deep = nn.Sequential(*(nn.Linear(1, 1) for _ in range(13)))
    assert text(resolved(deep, base(lr=1.0), Rule("*", lr=layer_decay(0.5))), "0.weight") == "1 × 0.5¹²"


def test_factors_before_and_after_a_value_multiply_it_and_exact_is_deaf_to_those_before() -> None:
    before, after = Rule("*", lr=scale(0.5)), Rule("*", lr=scale(0.1))
    assert text(resolved(Net(), before, base(), after), "head.bias") == "1e-3 × 0.5 × 0.1"
    deaf = resolved(Net(), Rule("*", lr=scale(0.5), optional=True), base(lr=exact(1.0)), after)
    assert text(deaf, "head.bias") == "1 × 0.1"
    heard = resolved(Net(), before, Rule("*", lr=exact(1.0), optional=True), base(lr=2.0), after)
    assert text(heard, "head.bias") == "2 × 0.5 × 0.1"


def test_factors_inside_a_tuple_reach_their_element_at_every_depth() -> None:
    def half_of_vectors(info: object) -> float:
        return 0.5 if getattr(info, "ndim", 0) == 1 else 1.0

    resolution = resolved(Net(), base(), Rule("backbone.*", betas=(layer_decay(0.5), scale(half_of_vectors))))
    assert text(resolution, "backbone.0.weight", "betas") == "(0.9 × 0.5, 0.999)"
    assert text(resolution, "backbone.1.bias", "betas") == "(0.9, 0.999 × 0.5)"


EXPLAINED = """\
backbone.0.weight: (4, 4), depth 1, group 'backbone/depth1'
  role matrix: its layer, a Linear, multiplies by it, and it has two dimensions
  role weight: its own name is 'weight'
optimizer = AdamW
    rule 1 'base': AdamW  [last word]
lr = 1e-3 × 0.1 × 0.5
    rule 1 'base': 1e-3  [last word]
    rule 2 'backbone': scale(0.1)  [factor]
    rule 3 'backbone': layer_decay(0.5)  [factor]
weight_decay = 0.05
    rule 1 'base': 0.05  [last word]
trainable = trainable
clip = none
betas[0] = 0.9 (default of AdamW)
"""


def test_explain_tells_every_property_and_who_spoke_about_it() -> None:
    assert str(resolved(Net(), *SLOW_BODY).explain("backbone.0.weight")).startswith(EXPLAINED)


def test_explain_keeps_the_plans_order_when_a_rule_in_between_speaks_for_another_algorithm() -> None:
    resolution = resolved(
        Net(),
        base(betas=(0.8, 0.9)),
        Rule("head", optimizer="Adam", lr=0.1, betas=(0.7, 0.8), momentum=0, optional=True),
        Rule("head", optimizer="AdamW", beta1=0.6),
    )
    told = {one.property: one for one in resolution.explain("head.bias").properties}
    assert [(who, word.status) for who, word in told["betas[0]"].outcomes] == [
        ("rule 1 'base' → rule 3 'head'", "overridden"),
        ("rule 2 'head' → rule 3 'head'", "declared for Adam only"),
        ("rule 3 'head'", "last word"),
    ]
    assert [word.status for _, word in told["betas[1]"].outcomes] == ["last word", "declared for Adam only"]
    assert told["momentum"].value == "none (AdamW)"


def test_explain_calls_a_default_one_even_where_a_rule_spoke_of_it_for_another_algorithm() -> None:
    elsewhere = Rule("head", optimizer="Adam", lr=0.1, beta2=scale(0.5), optional=True)
    resolution = resolved(Net(), base(beta1=0.8), elsewhere, Rule("head", optimizer="AdamW"))
    told = {one.property: one.value for one in resolution.explain("head.bias").properties}
    assert (told["betas[0]"], told["betas[1]"]) == ("0.8", "0.999 (default of AdamW)")


def test_explain_knows_a_tied_parameter_by_all_its_names_and_no_other() -> None:
    model = Net()
    model.head.weight = nn.Parameter(torch.zeros(5, 4))
    model.embed.weight = model.head.weight
    resolution = resolved(model, base())
    assert str(resolution.explain("head.weight")).startswith("embed.weight (also head.weight): (5, 4), depth 0, group")
    message = (
        r"unknown parameter 'head.weigth'; did you mean 'head.weight'\? \(there is: embed.weight, head.weight, backbone"
    )
    with pytest.raises(ResolutionError, match=message):
        resolution.explain("head.weigth")


def test_groups_are_named_by_the_rules_that_set_them_apart_and_by_depth() -> None:
    plan = [*SLOW_BODY, Rule(ndim(max=1), weight_decay=0.0, label="vectors")]
    assert {group.name for group in resolved(Net(), *plan).groups} == {
        "base",
        "vectors",
        *(f"backbone{also}/depth{level}" for also in ("", "/vectors") for level in (1, 2)),
    }


def test_labels_that_look_like_numbered_names_do_not_collide() -> None:
    twice = [Rule(f"{part}.*", label="part", lr=rate) for part, rate in (("embed", 0.1), ("norm", 0.2))]
    resolution = resolved(Net(), base(), *twice, Rule("head.*", label="part/1", lr=0.3))
    assert {group.name for group in resolution.groups} == {"base", "part/1", "part/2", "part/3"}
    assert group_of(resolution, "head.weight").name == "part/1"


def test_groups_do_not_depend_on_the_order_in_which_modules_are_registered() -> None:
    class Pair(nn.Module):
        def __init__(self, *names: str) -> None:
            super().__init__()
            for name in names:
                self.add_module(name, Net() if name == "net" else nn.LayerNorm(3))

    plan = Plan([base(weight_decay=0.1), Rule(role("norm"), weight_decay=0.0), Rule("net.head", lr=scale(0.1))])
    one, other = resolve(Pair("net", "post"), plan), resolve(Pair("post", "net"), plan)
    assert [group.name for group in one.groups] == [group.name for group in other.groups]
    for a, b in zip(one.groups, other.groups, strict=True):
        assert {info.name for info in a.parameters} == {info.name for info in b.parameters}


SCRIPT = """
from groupwise import Plan, Rule, layer_decay, scale
from groupwise.optim import resolve
from groupwise.select import kind, role
from tests.plan.models import Bert
plan = Plan([
    Rule("*", optimizer="AdamW", lr=1e-3, weight_decay=0.1),
    Rule(role("norm", "bias"), weight_decay=0.0),
    Rule("*", lr=layer_decay(0.8)),
    Rule(kind("Embedding"), lr=scale(0.5)),
    Rule(["*.query.*", "*.key.*"], eps=1e-6, label="attention"),
])
for group in resolve(Bert(), plan).groups:
    print(group.name, [info.name for info in group.parameters], dict(group.settings))
"""


def test_groups_and_their_names_are_the_same_from_run_to_run() -> None:
    ran = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert ran[0] == ran[1]
    assert ran[0].count("\n") > 15


def test_resolving_twice_or_from_described_parameters_is_the_same() -> None:
    model, plan = Bert(), Plan(SLOW_BODY[:1])
    assert str(resolve(model, plan)) == str(resolve(parameters_of(model), plan)) == str(resolve(model, plan))


def test_silence_about_freezing_leaves_what_is_frozen_in_a_group_of_its_own() -> None:
    model = Net()
    model.embed.requires_grad_(False)
    resolution = resolved(model, base())
    assert [(group.name, group.freezing) for group in resolution.groups] == [
        ("base", "trainable"),
        ("base/frozen", "frozen"),
    ]
    assert not model.embed.weight.requires_grad
    assert value(resolution, "embed.weight") == 1e-3
