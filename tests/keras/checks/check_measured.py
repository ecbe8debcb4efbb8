"""Rates that follow measurements, in the compiled step: closed forms, PyTorch, and what is refused."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import Plan, Rule, after, clip_norm, exact, gradient_share, trust_ratio, until, update_ratio
from groupwise.errors import ResolutionError
from groupwise.keras import GroupedOptimizer, Observer
from groupwise.records import read
from groupwise.schedules import linear
from tests.keras.checks.check_every_class import CLASSES
from tests.keras.nets import data, difference, fit, functional, state, weights
from tests.keras.reference import SGD, AdamW, Array, trained

RATE = linear(0.05, 0.01)


def compiled(plan: Plan, **options: Any) -> Any:
    model = functional()
    model.compile(GroupedOptimizer(plan, total_steps=8, **options).bind(model), "mse")
    return model


def rate(t: int) -> float:
    return RATE.at(t, 8)


@dataclass
class Lamb:
    """An update whose length is lr c |w|, within bounds of the ratio (You et al. 2020, algorithm 2)."""

    inner: AdamW | SGD
    coefficient: float = 1.0
    high: float = np.inf

    def step(self, name: str, w: Array, g: Array, t: int) -> Array:
        moved = w - self.inner.step(name, w, g, t)
        w_norm, norm = np.linalg.norm(w), np.linalg.norm(moved)
        ratio = self.coefficient * self.inner.lr(t) * w_norm / norm if w_norm > 0 and norm > 0 else 1.0
        return w - min(ratio, self.high) * moved


@dataclass
class Lars:
    """SGD that is given c |w| / (|g| + λ |w|) times g + λ w (You et al. 2017)."""

    inner: SGD
    coefficient: float
    decay: float

    def step(self, name: str, w: Array, g: Array, t: int) -> Array:
        w_norm, norm = np.linalg.norm(w), np.linalg.norm(g)
        ratio = self.coefficient * w_norm / (norm + self.decay * w_norm) if w_norm > 0 and norm > 0 else 1.0
        return self.inner.step(name, w, ratio * (g + self.decay * w), t)


@dataclass
class Controlled:
    """A controller of one variable: log f moves by `speed` of the error after each update."""

    inner: AdamW | SGD
    target: float
    speed: float
    peak: float
    logs: dict[str, float] = field(default_factory=dict)

    def step(self, name: str, w: Array, g: Array, t: int) -> Array:
        log = self.logs.get(name, 0.0)
        moved: Array = np.exp(log) * (w - self.inner.step(name, w, g, t))
        ratio = np.linalg.norm(moved) / np.linalg.norm(w) * self.peak / self.inner.lr(t)
        self.logs[name] = float(np.clip(log + self.speed * (np.log(self.target) - np.log(ratio)), *np.log([0.1, 10])))
        return w - moved


def weights_alone(plan: Plan, own: Any, **options: Any) -> float:
    """How far the kernels end from a reference in float64 that trains them by `own`, and biases not at all."""
    model = compiled(plan + [Rule("*bias", label="still", trainable=False)], **options)
    start = weights(model)
    fit(model)
    rules: dict[str, Any] = {"body": own(), "head": own()}
    still = SGD(lambda t: 0.0)

    class Kernels:
        """By the last part of a name: kernels by the rule of their layer."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def step(self, name: str, w: Array, g: Array, t: int) -> Array:
            stepped: Array = (self.inner if name.endswith("kernel") else still).step(name, w, g, t)
            return stepped

    split: Any = {name: Kernels(rule) for name, rule in rules.items()}
    accumulate = options.get("gradient_accumulation_steps", 1)
    x, y = data()
    assert difference(model, start) > 1e-3
    return difference(model, trained(start, x, y, split, 8, 8, accumulate=accumulate))


def adamw() -> AdamW:
    return AdamW(rate, lambda t: 0.1)


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"loss_scale_factor": 64.0}], ids=str)
@pytest.mark.parametrize(("coefficient", "high"), [(1.0, None), (0.5, None), (1.0, 0.5)])
def test_a_trust_ratio_on_adamw_is_lamb(coefficient: float, high: float | None, options: dict[str, Any]) -> None:
    plan = Plan(
        [Rule("*", optimizer="AdamW", lr=RATE, weight_decay=0.1), Rule("*", lr=trust_ratio(coefficient, high=high))]
    )
    assert weights_alone(plan, lambda: Lamb(adamw(), coefficient, high or np.inf), **options) < 2e-6


def test_a_trust_ratio_on_sgd_moves_by_a_share_of_the_weights() -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=RATE, momentum=0.9), Rule("*", lr=trust_ratio())])
    assert weights_alone(plan, lambda: Lamb(SGD(rate, lambda t: 0.9))) < 2e-6


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_ratio_of_the_gradient_on_sgd_is_lars(decay: float) -> None:
    base = Rule("*", optimizer="SGD", lr=linear(5.0, 1.0), momentum=0.9, weight_decay=decay)
    plan = Plan([base, Rule("*", lr=trust_ratio(0.01, of="gradient"))])

    def own() -> Lars:
        return Lars(SGD(lambda t: linear(5.0, 1.0).at(t, 8), lambda t: 0.9), 0.01, decay)

    assert weights_alone(plan, own) < 2e-6


@pytest.mark.parametrize("algorithm", ["AdamW", "SGD"])
def test_a_controller_is_the_one_of_its_formula_and_obeys_the_schedule(algorithm: str) -> None:
    given: dict[str, Any] = {"weight_decay": 0.1} if algorithm == "AdamW" else {}
    own = [Rule(name, optimizer=algorithm, lr=RATE, **given) for name in ("body", "head")]
    factors = [Rule(name, lr=update_ratio(target, speed=0.5)) for name, target in (("body", 0.01), ("head", 0.011))]
    plan = Plan([*own, *factors])

    def rule(target: float) -> Controlled:
        return Controlled(adamw() if algorithm == "AdamW" else SGD(rate), target, 0.5, 0.05)

    targets = itertools.cycle([0.01, 0.011])
    assert weights_alone(plan, lambda: rule(next(targets))) < 2e-6


def test_the_first_update_of_a_controller_is_that_of_the_class_bit_for_bit() -> None:
    base = Plan([Rule("*", optimizer="AdamW", lr=0.05, weight_decay=0.1)])
    models = [compiled(plan) for plan in (base, base + [Rule("*", lr=update_ratio(1e-4, speed=1.0))])]
    x, y = (array.astype("float32")[:8] for array in data())
    for model in models:
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert difference(*models) == 0
    assert models[1].optimizer.rate_factors == {"base": 1.0}
    for model in models:
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert models[1].optimizer.rate_factors == {"base": pytest.approx(0.1)}
    assert difference(*models) > 1e-3


def test_the_norms_of_a_group_are_joint_where_that_is_asked_for() -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1), Rule("*", lr=trust_ratio(per="group"))])
    model = compiled(plan)
    before = weights(model)
    x, y = (array.astype("float32")[:8] for array in data())
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    after_it = weights(model)
    moved = np.sqrt(sum(((after_it[n] - before[n]) ** 2).sum() for n in before))
    assert moved == pytest.approx(0.1 * np.sqrt(sum((w**2).sum() for w in before.values())), rel=1e-5)


REFUSED = {"Ftrl"}
"""Classes whose update is not proportional to the rate."""


@pytest.mark.parametrize("name", CLASSES)
def test_under_every_class_that_is_not_refused_a_step_moves_a_tensor_by_a_share_of_its_norm(name: str) -> None:
    plan = Plan([Rule("*", optimizer=name, lr=0.05), Rule("*", lr=trust_ratio(0.5))])
    model = functional()
    if name in REFUSED:
        with pytest.raises(ResolutionError, match=f"and that of {name} is not proportional to its learning rate"):
            GroupedOptimizer(plan).bind(model)
        return
    optimizer = GroupedOptimizer(plan).bind(model)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(1)
    model.set_weights([rng.standard_normal(w.shape) for w in model.get_weights()])
    for _ in range(3):
        before = model.get_weights()
        gradients = [keras.ops.convert_to_tensor(rng.standard_normal(w.shape), "float32") for w in before]
        optimizer.apply(gradients, model.trainable_variables)
        for w, now in zip(before, model.get_weights(), strict=True):
            assert np.linalg.norm(now - w) == pytest.approx(0.05 * 0.5 * np.linalg.norm(w), rel=1e-4)


@pytest.mark.parametrize(
    ("rule", "measured"),
    [
        ({"optimizer": "AdamW", "weight_decay": 0.1}, trust_ratio()),
        ({"optimizer": "Adam"}, trust_ratio(0.5, high=1.5)),
        ({"optimizer": "SGD", "momentum": 0.9}, trust_ratio()),
        ({"optimizer": "SGD", "momentum": 0.9}, trust_ratio(per="group")),
        ({"optimizer": "SGD", "momentum": 0.9}, trust_ratio(0.01, of="gradient")),
        ({"optimizer": "SGD", "momentum": 0.9}, update_ratio(1e-3, speed=0.5)),
        ({"optimizer": "AdamW", "weight_decay": 0.1}, update_ratio(1e-3, speed=0.5)),
    ],
    ids=str,
)
def test_a_plan_moves_weights_as_it_does_in_pytorch(rule: dict[str, Any], measured: Any) -> None:
    torch: Any = pytest.importorskip("torch")
    from groupwise.optim import GroupedOptimizer as OfTorch  # not in tensorflow's environment

    plan = Plan([Rule("*", lr=0.05, **rule), Rule("*", lr=measured)])
    if rule["optimizer"] != "SGD":
        plan = plan + [Rule("*", label="eps", eps=1e-30)]  # the two have it in other places
    model = functional()
    optimizer = GroupedOptimizer(plan).bind(model)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(1)
    model.set_weights([rng.standard_normal(w.shape) for w in model.get_weights()])
    twin = torch.nn.ParameterDict({f"w{i}": torch.from_numpy(w.copy()) for i, w in enumerate(model.get_weights())})
    other = OfTorch(twin, plan)
    for _ in range(6):
        gradients = [rng.standard_normal(w.shape).astype("float32") for w in model.get_weights()]
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], model.trainable_variables)
        for p, g in zip(twin.values(), gradients, strict=True):
            p.grad = torch.from_numpy(g.copy())
        other.step()
    found = zip(model.get_weights(), twin.values(), strict=True)
    assert max(float(np.abs(w - p.detach().numpy()).max()) for w, p in found) < 5e-6
    (factor,) = optimizer.rate_factors.values()
    assert factor == pytest.approx(float(other.param_groups[0]["rate_factor"]), rel=1e-4)


FOLLOWING = Plan(
    [
        Rule("*", optimizer="AdamW", lr=RATE, weight_decay=0.1),
        Rule("body", lr=trust_ratio()),
        Rule("head", lr=update_ratio(0.01, speed=0.5)),
    ],
    clip=clip_norm(0.5),
)


@pytest.mark.parametrize("scaled", [False, True], ids=["bare", "scaled"])
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 3, "use_ema": True}], ids=["", "accumulated"])
def test_a_saved_run_goes_on_bit_for_bit(scaled: bool, options: dict[str, Any], tmp_path: Path) -> None:
    model = functional()
    optimizer: Any = GroupedOptimizer(FOLLOWING, total_steps=16, **options).bind(model)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0, dynamic_growth_steps=3)
    model.compile(optimizer, "mse")
    fit(model, epochs=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one in (model, loaded):
        fit(one)
    assert difference(model, loaded) == 0
    assert all(np.array_equal(*pair) for pair in zip(state(model.optimizer), state(loaded.optimizer), strict=True))
    inner = getattr(loaded.optimizer, "inner_optimizer", loaded.optimizer)
    assert all(factor not in (0.0, 1.0) for factor in inner.rate_factors.values())


def test_state_with_a_controller_is_not_read_as_one_without(tmp_path: Path) -> None:
    model, other = compiled(FOLLOWING), compiled(Plan(FOLLOWING.rules[:-1], clip=clip_norm(0.5)))
    fit(model, epochs=1)
    fit(other, epochs=1)
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ValueError, match="other groups or algorithms for"):
        other.load_weights(tmp_path / "model.weights.h5")


@pytest.mark.parametrize("timeline", [after("4 steps"), until("4 steps")], ids=["after", "until"])
def test_a_frozen_part_keeps_its_factor(timeline: Any) -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=0.05, trainable=timeline), Rule("*", lr=update_ratio(1e-3, speed=0.5))])
    model, short = compiled(plan), compiled(Plan([Rule("*", optimizer="SGD", lr=0.05), plan.rules[1]]))
    fit(short, epochs=1)
    fit(model, epochs=2)
    assert difference(model, short) < 1e-7
    assert model.optimizer.rate_factors == pytest.approx(short.optimizer.rate_factors)


def test_records_hold_the_factor_in_force_beside_the_rate(tmp_path: Path) -> None:
    model, seen = compiled(FOLLOWING), list[dict[str, float]]()
    look: Callable[..., Any] = lambda batch, logs: seen.append(model.optimizer.rate_factors)  # noqa: E731
    fit(model, callbacks=[Observer(tmp_path), keras.callbacks.LambdaCallback(on_train_batch_end=look)])
    run = read(tmp_path)
    for group in ("body", "head"):
        assert list(run.series("values", group, "rate_factor")[1]) == [one[group] for one in seen]
        assert list(run.series("values", group, "lr")[1]) == pytest.approx([rate(t) for t in range(8)], rel=1e-6)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([Rule("*", optimizer="SGD", lr=0.1), Rule("*", lr=gradient_share())], "compares gradients of several groups"),
        ([Rule("*", optimizer="Ftrl", lr=0.1), Rule("*", lr=trust_ratio())], "that of Ftrl is not proportional"),
        (
            [Rule("*", optimizer="Adam", lr=0.1), Rule("*", lr=trust_ratio(of="gradient"))],
            "to which the update of Adam is not proportional",
        ),
        (
            [Rule("*", optimizer="SGD", lr=RATE, momentum=0.9), Rule("*", lr=update_ratio())],
            "SGD of Keras has the rates of the past in its state",
        ),
    ],
)
def test_what_a_class_does_not_allow_is_refused_with_the_reason(rules: list[Rule], said: str) -> None:
    with pytest.raises(ResolutionError, match=said):
        GroupedOptimizer(Plan(rules), total_steps=8).bind(functional())


def test_weights_in_half_precision_are_refused() -> None:
    keras.mixed_precision.set_global_policy("bfloat16")
    try:
        model = functional()
        with pytest.raises(ResolutionError, match=r"'body.kernel' is bfloat16: what a step has done is read from"):
            GroupedOptimizer(FOLLOWING, total_steps=8).bind(model)
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_a_value_that_is_exact_follows_nothing() -> None:
    base = Plan([Rule("*", optimizer="SGD", lr=0.1), Rule("*", label="trust", lr=trust_ratio())])
    optimizer = compiled(base + [Rule("head", label="plain", lr=exact(0.05))]).optimizer
    assert [group.name for group in optimizer.resolution.groups if group.settings["learning_rate"].measured] == [
        "trust"
    ]
