"""Hyperparameters that the algorithm does not have, or not of that kind; and algorithms that there are not."""

import pickle
from typing import Any

import pytest
import torch
from torch import nn

from groupwise import Plan, PlanScheduler, Rule, clip_norm, exact, layer_decay, scale
from groupwise.errors import GroupwiseError, OptimizerError, PlanError, ResolutionError
from groupwise.optim import GroupedOptimizer
from groupwise.plan.setting import ScalarSetting, TupleSetting
from groupwise.schedules import constant, cosine, linear
from groupwise.select import role
from tests.plan.models import Net, base, group_of, resolved, value

MEANT = {
    "wd": "weight_decay=",
    "decay": "weight_decay=",
    "learning_rate": "lr=",
    "lr_scale": r"lr=scale\(…\)",
    "lr_mult": r"lr=scale\(…\)",
    "layer_decay": r"lr=layer_decay\(…\)",
    "freeze": "trainable=False",
    "frozen": "trainable=False",
    "requires_grad": "trainable=",
    "max_norm": r"clip=clip_norm\(…\)",
    "max_grad_norm": r"clip=clip_norm\(…\)",
    "grad_clip": r"clip=clip_norm\(…\)",
    "clip_norm": r"clip=clip_norm\(…\)",
    "clipnorm": r"clip=clip_norm\(…\)",
    "schedule": r"lr=cosine\(…\) or another schedule",
    "scheduler": r"lr=cosine\(…\) or another schedule",
    "warmup": r"lr=cosine\(…, warmup=…\)",
    "name": "label=",
}
NEAREST = {
    "weight_dcay": "weight_decay",
    "bettas": "betas",
    "ep": "eps",
    "amsgrd": "amsgrad",
    "lrr": "lr",
    "beta3": "betas",
}
FIELDS = {"trainble": "trainable", "optionl": "optional", "lable": "label", "optimiser": "optimizer", "clp": "clip"}
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "three betas": ({"betas": (0.9, 0.95, 0.99)}, r"betas takes a tuple of 2 values, got \(0.9, 0.95, 0.99\)"),
    "one beta": ({"betas": (0.9,)}, r"betas takes a tuple of 2 values, got \(0.9,\)"),
    "betas as a number": ({"betas": 0.9}, "betas takes a tuple of 2 values, got 0.9"),
    "text inside betas": ({"betas": (0.9, "high")}, r"betas\[1\] must be a number or a schedule, got 'high'"),
    "an lr as text": ({"lr": "fast"}, "lr must be a number or a schedule, got 'fast'"),
    "an lr as a flag": ({"lr": True}, "lr must be a number or a schedule, got True"),
    "an lr as None": ({"lr": None}, "lr must be a number or a schedule, got None"),
    "an lr as a tuple": ({"lr": (0.1, 0.2)}, r"lr must be a number or a schedule, got \(0.1, 0.2\)"),
    "a flag as a number": ({"amsgrad": 1}, "amsgrad must be true or false, got 1"),
    "a flag that is scheduled": ({"amsgrad": constant(1.0)}, r"amsgrad must be true or false, got constant\(1.0\)"),
    "an element twice": ({"betas": (0.8, 0.9), "beta1": 0.7}, r"it declares betas\[0\] twice, as 0.8 and as 0.7"),
}
MULTIPLIED: dict[str, tuple[Rule, str]] = {
    "a tuple": (
        Rule("head.*", betas=scale(0.1)),
        "rule 2 'head', for 'head.weight': betas is a tuple of 2: a factor cannot multiply it; scale an element, as",
    ),
    "a flag": (
        Rule("head.*", amsgrad=scale(0.1)),
        "amsgrad is False by default, not a number: a factor cannot multiply it",
    ),
    "nothing": (
        Rule("head.*", foreach=scale(0.1)),
        r"scale\(0.1\) cannot multiply foreach, which is None and not a number",
    ),
    "an exact tuple's elements, from outside": (Rule("head.*", betas=layer_decay(0.5)), "betas is a tuple of 2"),
}


@pytest.mark.parametrize("name", MEANT)
def test_a_usual_word_for_something_else_is_pointed_to_what_is_meant(name: str) -> None:
    message = f"rule 2 'head', for 'head.weight': AdamW has no hyperparameter '{name}': say {MEANT[name]}$"
    with pytest.raises(PlanError, match=message):
        resolved(Net(), base(), Rule("head.*", **{name: 0.5}))


@pytest.mark.parametrize("name", NEAREST)
@pytest.mark.parametrize("given", [0.5, 0, False])
def test_a_misspelt_hyperparameter_gets_the_nearest_even_at_zero(name: str, given: float) -> None:
    message = (
        rf"rule 1 'base', .*unknown hyperparameter of AdamW '{name}'; did you mean '{NEAREST[name]}'\? \(there is: lr, "
    )
    with pytest.raises(PlanError, match=message):
        resolved(Net(), base(**{name: given}))


@pytest.mark.parametrize("name", FIELDS)
def test_a_misspelt_field_of_the_rule_is_told_apart_from_hyperparameters(name: str) -> None:
    message = f"AdamW has no hyperparameter '{name}': did you mean {FIELDS[name]}=, which belongs to the rule"
    with pytest.raises(PlanError, match=message):
        resolved(Net(), base(**{name: False}))


@pytest.mark.parametrize(("declared", "message"), KINDS.values(), ids=KINDS)
def test_a_hyperparameter_of_the_wrong_kind_is_refused(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=f"rule 1 'base', for 'embed.weight': {message}"):
        resolved(Net(), base(**declared))


@pytest.mark.parametrize(("rule", "message"), MULTIPLIED.values(), ids=MULTIPLIED)
def test_a_factor_multiplies_numbers_alone(rule: Rule, message: str) -> None:
    with pytest.raises(GroupwiseError, match=message):
        resolved(Net(), base(betas=exact((0.9, 0.95))), rule)


def test_a_factor_on_text_is_refused() -> None:
    muon = Rule(role("matrix"), optimizer="Muon", lr=0.02, adjust_lr_fn="original", weight_decay=0.1)
    with pytest.raises(ResolutionError, match=r"scale\(0.5\) cannot multiply adjust_lr_fn, which is 'original'"):
        resolved(Net(), base(), muon, Rule("backbone.*.weight", adjust_lr_fn=scale(0.5)))


def test_a_function_that_is_a_factor_is_checked_for_every_parameter() -> None:
    halves = resolved(Net(), base(), Rule("*", lr=scale(lambda info: 1 / info.ndim)))
    assert value(halves, "head.weight") == 1e-3 / 2
    assert value(halves, "head.bias") == 1e-3
    message = r"for 'head.bias': scale\(function\) for 'head.bias': the function's result must not be negative, got -1"
    with pytest.raises(PlanError, match=message):
        resolved(Net(), base(), Rule("head.*", lr=scale(lambda info: info.ndim - 2)))
    with pytest.raises(PlanError, match=r"the function's result must be a finite number, not 'fast'"):
        resolved(Net(), base(), Rule("head.*", lr=scale(lambda info: "fast")))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "adamw",
            r"rule 2 'head': unknown optimizer of torch.optim 'adamw'; did you mean 'AdamW'\? \(there is: ASGD, ",
        ),
        ("SGDM", r"unknown optimizer of torch.optim 'SGDM'; did you mean 'SGD'\?"),
        ("lr_scheduler", "unknown optimizer of torch.optim 'lr_scheduler'.*any other is \"package.module:Class\""),
        ("Optimizer", "'Optimizer' cannot be used in a plan: Optimizer is not a subclass of torch.optim.Optimizer"),
        ("no_such_package:Lion", "'no_such_package:Lion': cannot import 'no_such_package'"),
        ("torch.optim:Lion", "'torch.optim:Lion': 'torch.optim' has no class 'Lion'"),
        ("torch.nn:Linear", "'torch.nn:Linear' cannot be used in a plan: Linear is not a subclass of torch.optim.Opt"),
        ("LBFGS", "LBFGS evaluates the loss itself and treats all parameters as one vector.*use it on its own"),
    ],
)
def test_an_optimizer_that_is_none_is_refused_with_the_nearest_or_the_reason(name: str, message: str) -> None:
    with pytest.raises(OptimizerError, match=message):
        resolved(Net(), base(), Rule("head.*", optimizer=name, lr=0.1))


def test_a_class_that_is_no_optimizer_is_refused() -> None:
    with pytest.raises(OptimizerError, match=r"Linear is not a subclass of torch.optim.Optimizer"):
        resolved(Net(), base(optimizer=nn.Linear))


@pytest.mark.parametrize(
    ("declared", "betas"),
    [
        ({"betas": (0, 0.9)}, (0.0, 0.9)),
        ({"betas": exact((0, 0))}, (0.0, 0.0)),
        ({"beta1": 0}, (0.0, 0.999)),
    ],
)
def test_whole_numbers_among_betas_are_read_as_the_floats_that_torch_takes(
    declared: dict[str, Any], betas: tuple[float, float]
) -> None:
    optimizer = GroupedOptimizer(Net(), Plan([base(**declared)]))
    held = optimizer.param_groups[0]["betas"]
    assert (held, [type(beta) for beta in held]) == (betas, [float, float])


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"lr": -1.0}, "Invalid learning rate: -1.0"),
        ({"weight_decay": -0.1}, "Invalid weight_decay value: -0.1"),
        ({"eps": -1e-8}, "Invalid epsilon value: -1e-08"),
        ({"betas": (1.5, 0.9)}, "Invalid beta parameter at index 0: 1.5"),
        ({"beta2": 1.0}, "Invalid beta parameter at index 1: 1.0"),
        ({"lr": linear(0.1, end=-0.1)}, "Invalid learning rate: -0.1"),
        ({"lr": constant(0.1).then(constant(-0.2), at="5%")}, "Invalid learning rate: -0.2"),
        ({"beta1": linear(0.9, end=1.2)}, "Invalid beta parameter at index 0: 1.2"),
        ({"weight_decay": cosine(0.1, end=-0.3)}, "Invalid weight_decay value: -0.3"),
    ],
)
def test_the_class_itself_refuses_values_at_start_peak_and_end(declared: dict[str, Any], message: str) -> None:
    where = r"group 'base' \(rules 1 'base'\), parameter 'embed.weight': AdamW refuses: "
    with pytest.raises(ResolutionError, match=where + message):
        resolved(Net(), base(**declared))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule("head.*", beta1=scale(2.0)), "Invalid beta parameter at index 0: 1.8"),
        (Rule("head.*", lr=scale(linear(1.0, end=-1.0))), "Invalid learning rate: -0.001"),
        (Rule("head.*", lr=scale(1e200) * scale(1e200)), r"lr = 1e-3 × 1e200 × 1e200 is too large for a float"),
    ],
)
def test_what_factors_make_of_a_value_is_tried_too(rule: Rule, message: str) -> None:
    where = r"group 'head' \(rules 1 'base', 2 'head'\), parameter 'head.weight': AdamW refuses: "
    with pytest.raises(ResolutionError, match=where + message):
        resolved(Net(), base(), rule)


def test_muon_refuses_a_bias_and_takes_the_matrices() -> None:
    muon = Rule(role("matrix"), optimizer="Muon", lr=0.02, weight_decay=0.0)
    assert group_of(resolved(Net(), base(), muon), "backbone.0.weight").algorithm == "Muon"
    message = r"group 'backbone' .*, parameter 'backbone.0.bias': Muon refuses: Muon only supports 2D parameters"
    with pytest.raises(ResolutionError, match=message):
        resolved(Net(), base(), Rule("backbone.*", optimizer="Muon", lr=0.02))


def test_a_sparse_gradient_under_adamw_and_a_dense_one_under_sparse_adam_are_refused() -> None:
    with pytest.raises(ResolutionError, match=r"parameter 'embed.weight': AdamW refuses: .*consider SparseAdam"):
        resolved(Net(sparse=True), base())
    with pytest.raises(ResolutionError, match=r"parameter 'backbone.0.weight': SparseAdam refuses: .*dense gradients"):
        resolved(Net(sparse=True), base(optimizer="SparseAdam"))
    sparse = resolved(Net(sparse=True), base(), Rule("embed", optimizer="SparseAdam", lr=0.01))
    assert group_of(sparse, "embed.weight").algorithm == "SparseAdam"


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Sequential(), {"act": nn.ReLU()}])
def test_a_model_without_parameters_is_refused(model: Any) -> None:
    with pytest.raises(ResolutionError, match=r"the model has no parameters"):
        resolved(model, base())


def test_a_model_that_is_frozen_resolves_and_trains_nothing() -> None:
    frozen = resolved(Net().requires_grad_(False), base())
    assert [(group.name, group.freezing) for group in frozen.groups] == [("base", "frozen")]
    assert "of them frozen" in str(frozen)
    without = resolved(Net(), Rule("*", trainable=False))
    assert [(group.algorithm, group.freezing) for group in without.groups] == [(None, "frozen")]
    assert without.torch_groups() == []
    with pytest.raises(
        OptimizerError, match=r"nothing to optimise: every parameter is frozen and no rule gives any an opt"
    ):
        GroupedOptimizer(Net(), Plan([Rule("*", trainable=False)]))


def test_every_trainable_parameter_without_an_optimizer_is_named() -> None:
    rest = (
        "embed.weight, backbone.0.weight, backbone.0.bias, backbone.1.weight, backbone.1.bias, norm.weight, norm.bias"
    )
    way_out = r"; add a first rule Rule\(\"\*\", optimizer=…, lr=…\), or freeze them with trainable=False"
    with pytest.raises(ResolutionError, match=f"7 trainable parameters have no optimizer: {rest}{way_out}"):
        resolved(Net(), Rule("head.*", optimizer="SGD", lr=0.1))
    with pytest.raises(ResolutionError, match=r"1 trainable parameter has no optimizer: head.bias;"):
        resolved(Net(), Rule(~role("bias") | "norm.*" | "backbone.*", optimizer="SGD", lr=0.1))


def test_what_is_frozen_and_has_no_optimizer_is_listed_and_stays_out_of_the_groups() -> None:
    resolution = resolved(
        Net(), Rule("head.*", optimizer="SGD", lr=0.1), Rule(["embed", "backbone", "norm"], trainable=False)
    )
    assert [(group.algorithm, len(group.parameters)) for group in resolution.groups] == [("SGD", 2), (None, 7)]
    assert [len(group["params"]) for group in resolution.torch_groups()] == [2]
    torch.optim.SGD(resolution.torch_groups()).step()


def test_a_declaration_on_what_nothing_optimises_breaks_no_law() -> None:
    rules = [Rule("head.*", optimizer="SGD", lr=0.1), Rule(["embed", "backbone", "norm"], trainable=False)]
    resolution = resolved(Net(), *rules, Rule("norm.*", lr=0.5), Rule("norm.*", lr=scale(0.1)))
    shown = {one.property: one.value for one in resolution.explain("norm.weight").properties}
    assert shown["lr"] == "none (no optimizer)"


class Clipped(torch.optim.Optimizer):
    """SGD on clamped gradients; arguments are called as those of a rule."""

    def __init__(
        self, params: Any, lr: float = 0.1, clip: float = 1.0, trainable: float = 1.0, label: str = ""
    ) -> None:
        super().__init__(params, {"lr": lr, "clip": clip, "trainable": trainable, "label": label})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(p.grad.clamp(-group["clip"], group["clip"]), alpha=group["lr"] * group["trainable"])


class Named(torch.optim.SGD):
    """A class whose groups hold a key that groupwise's groups hold."""

    def __init__(self, params: Any, lr: float = 0.1, name: str = "") -> None:
        super().__init__(params, lr)
        self.param_groups[0]["name"] = name


def test_a_hyperparameter_called_as_an_argument_of_a_rule_goes_into_the_mapping() -> None:
    net = nn.Linear(2, 2)
    start = net.weight.detach().clone()
    plan = Plan(
        [
            Rule("*", optimizer=Clipped, lr=0.1, clip=clip_norm(100.0), hyperparameters={"clip": linear(0.5)}),
            Rule("weight", hyperparameters={"trainable": 0.25, "label": "w", "clip": scale(0.5)}),
        ]
    )
    optimizer = GroupedOptimizer(net, plan)
    scheduler = PlanScheduler(optimizer, total_steps=2)
    net.weight.grad, net.bias.grad = torch.full_like(net.weight, 3.0), torch.full_like(net.bias, 3.0)
    optimizer.step()
    assert torch.equal(net.weight, start - 0.1 * 0.25 * 0.25)
    scheduler.step()
    assert {group["name"]: group["clip"] for group in optimizer.param_groups} == {"weight": 0.125, "base": 0.25}
    assert optimizer.resolution.groups[0].clip is not None
    text = str(optimizer.resolution.explain("weight"))
    assert "hyperparameters.clip = " in text
    assert "\nclip = norm" in text.replace("clip = clip_norm", "clip = norm")
    assert "hyperparameters.clip" in str(optimizer.resolution)


@pytest.mark.parametrize(
    "plan", [Plan([Rule("*", optimizer="SGD", lr=0.1, hyperparameters={"clip": 0.5, "label": "a"})])]
)
def test_the_mapping_survives_a_file_and_a_pickle(plan: Plan) -> None:
    assert Plan.loads(plan.dumps()) == plan
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert "hyperparameters" in plan.dumps()


def test_the_mapping_is_the_keywords() -> None:
    assert Rule("*", hyperparameters={"lr": 0.1, "eps": 1e-6}) == Rule("*", lr=0.1, eps=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lr": 0.1, "hyperparameters": {"lr": 0.2}}, "declares lr twice"),
        ({"hyperparameters": 3}, "hyperparameters is a mapping of names to values, not 3"),
        ({"hyperparameters": {"a b": 3}}, "'a b' is not the name of a hyperparameter"),
        ({"hyperparameters": {3: 3}}, "3 is not the name of a hyperparameter"),
        ({"hyperparameters": {}}, "declares nothing"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        Rule("*", **given)


def test_a_class_that_keeps_a_key_of_ours_in_its_groups_is_refused() -> None:
    with pytest.raises(ResolutionError, match="Named keeps 'name' in its groups"):
        GroupedOptimizer(nn.Linear(2, 2), Plan([Rule("*", optimizer=Named, lr=0.1)]))


def test_the_elements_of_a_tuple_stand_at_each_of_their_key_values_together() -> None:
    setting = TupleSetting((ScalarSetting(0.9), ScalarSetting(linear(0.99, 0.5))))
    assert setting.key_values == ((0.9, 0.99), (0.9, 0.5))
