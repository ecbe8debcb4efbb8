"""What fit comes to, against backpropagation and optimizers written in numpy."""

import keras
import numpy as np
import pytest

from groupwise import Plan, Rule, clip_norm, clip_value, scale
from groupwise.keras import GroupedOptimizer
from groupwise.schedules import cosine, exponential, linear
from tests.keras.nets import BATCH, FORMS, data, difference, fit, sequential, weights
from tests.keras.reference import SGD, AdamW, Weights, clipped, trained

CLOSE = 2e-6  # float32 against float64 over eight updates
STEPS = 8
COSINE, EXPONENTIAL = cosine(0.02, warmup="2 steps"), exponential(0.1, 0.9, every="1 step")
BODY = Rule("body", optimizer="AdamW", lr=COSINE, weight_decay=0.1, beta1=0.8)
HEAD = Rule("head", optimizer="SGD", lr=EXPONENTIAL, momentum=0.9)


def adamw(**values: object) -> AdamW:
    return AdamW(**{"lr": lambda t: COSINE.at(t, STEPS), "wd": lambda t: 0.1, "beta_1": lambda t: 0.8, **values})  # type: ignore[arg-type]


def sgd(**values: object) -> SGD:
    return SGD(**{"lr": lambda t: EXPONENTIAL.at(t, STEPS), "momentum": lambda t: 0.9, **values})  # type: ignore[arg-type]


def expected(before: Weights, **options: object) -> Weights:
    x, y = data()
    rules = {"body": options.pop("body", None) or adamw(), "head": options.pop("head", None) or sgd()}
    return trained(before, x, y, rules, options.pop("batches", STEPS), BATCH, **options)  # type: ignore[arg-type]


def fitted(plan: Plan, **options: object) -> float:
    """Train our net by `plan`, and say how far it ends from the reference."""
    model = sequential()
    before = weights(model)
    ours = options.pop("ours", {})
    model.compile(GroupedOptimizer(plan, total_steps=STEPS, **ours).bind(model), "mse")  # type: ignore[arg-type]
    fit(model, epochs=int(options.get("batches", STEPS)) * BATCH // 32)  # type: ignore[call-overload]
    return difference(model, expected(before, **options))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_fit_equals_the_reference_on_every_form_of_model(form: object) -> None:
    model = form()  # type: ignore[operator]
    before = weights(model)
    model.compile(GroupedOptimizer(Plan([BODY, HEAD]), total_steps=STEPS).bind(model), "mse")
    fit(model)
    assert difference(model, expected(before)) < CLOSE


def test_any_number_may_be_scheduled_in_the_compiled_step() -> None:
    decay, beta = linear(0.0, 0.5), linear(0.5, 0.95)
    body = Rule("body", optimizer="AdamW", lr=COSINE, weight_decay=decay, beta_1=beta)
    reference = adamw(wd=lambda t: decay.at(t, STEPS), beta_1=lambda t: beta.at(t, STEPS))
    assert fitted(Plan([body, HEAD]), body=reference) < CLOSE


def test_a_momentum_that_starts_at_zero_may_be_scheduled() -> None:
    momentum = linear(0.0, 0.9)
    head = Rule("head", optimizer="SGD", lr=EXPONENTIAL, momentum=momentum)
    assert fitted(Plan([BODY, head]), head=sgd(momentum=lambda t: momentum.at(t, STEPS))) < CLOSE


def test_factors_multiply_in_the_compiled_step() -> None:
    rules = [
        Rule("*", optimizer="SGD", lr=EXPONENTIAL, momentum=0.9),
        Rule("body", lr=scale(0.1) * scale(linear(0, 1))),
    ]
    body = sgd(lr=lambda t: EXPONENTIAL.at(t, STEPS) * 0.1 * linear(0, 1).at(t, STEPS))
    assert fitted(Plan(rules), body=body) < CLOSE


def test_the_plans_clip_is_one_norm_over_all_groups() -> None:
    assert fitted(Plan([BODY, HEAD], clip=clip_norm(0.3)), clip=clipped(0.3)) < CLOSE


def test_a_rules_clip_is_one_norm_over_what_it_wins_and_the_plans_comes_after() -> None:
    plan = Plan([BODY, HEAD, Rule("body", label="clip", clip=clip_norm(0.1))], clip=clip_norm(0.3))
    own, whole = clipped(0.1, "body"), clipped(0.3)
    assert fitted(plan, clip=lambda g: whole(own(g))) < CLOSE


def test_values_are_clipped_entry_by_entry() -> None:
    plan = Plan([BODY, HEAD], clip=clip_value(0.05))
    assert fitted(plan, clip=lambda g: {k: np.clip(v, -0.05, 0.05) for k, v in g.items()}) < CLOSE


def test_under_accumulation_the_accumulated_gradient_is_clipped_and_schedules_count_updates() -> None:
    plan = Plan([BODY, HEAD], clip=clip_norm(0.3))
    options = {"batches": 2 * STEPS, "accumulate": 2, "clip": clipped(0.3)}
    assert fitted(plan, ours={"gradient_accumulation_steps": 2}, **options) < CLOSE


def test_a_loss_scale_changes_nothing() -> None:
    assert (
        fitted(Plan([BODY, HEAD], clip=clip_norm(0.3)), ours={"loss_scale_factor": 1024.0}, clip=clipped(0.3)) < CLOSE
    )


def test_the_factor_multiplies_every_groups_rate() -> None:
    body, head = adamw(lr=lambda t: 0.5 * COSINE.at(t, STEPS)), sgd(lr=lambda t: 0.5 * EXPONENTIAL.at(t, STEPS))
    assert fitted(Plan([BODY, HEAD]), ours={"learning_rate": 0.5}, body=body, head=head) < CLOSE


def test_callbacks_that_set_the_learning_rate_set_the_factor() -> None:
    model = sequential()
    before = weights(model)
    model.compile(GroupedOptimizer(Plan([BODY, HEAD]), total_steps=STEPS).bind(model), "mse")
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.5)
    fit(model, callbacks=[halve, keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=9)])

    def rate(schedule: object) -> object:
        return lambda t: schedule.at(t, STEPS) * 0.5 ** (1 + t // 4)  # type: ignore[attr-defined]

    assert difference(model, expected(before, body=adamw(lr=rate(COSINE)), head=sgd(lr=rate(EXPONENTIAL)))) < CLOSE


def test_a_number_assigned_between_epochs_counts_without_compiling_anew() -> None:
    model = sequential()
    before = weights(model)
    body = Rule("body", optimizer="AdamW", lr=0.02, weight_decay=0.1, beta1=0.8)
    optimizer = GroupedOptimizer(Plan([body, HEAD]), total_steps=STEPS).bind(model)
    model.compile(optimizer, "mse")
    fit(model, epochs=1)
    step = model.train_function
    optimizer.hyperparameters["body"].update({"weight_decay": 0.4, "beta1": 0.6, "lr": 0.01})
    fit(model, epochs=1)
    assert model.train_function is step
    late = adamw(
        lr=lambda t: 0.02 if t < 4 else 0.01,
        wd=lambda t: 0.1 if t < 4 else 0.4,
        beta_1=lambda t: 0.8 if t < 4 else 0.6,
    )
    assert difference(model, expected(before, body=late)) < CLOSE


@pytest.mark.filterwarnings("ignore:the run went on past its end")
def test_past_the_end_the_last_value_holds() -> None:
    model = sequential()
    before = weights(model)
    model.compile(GroupedOptimizer(Plan([BODY, HEAD]), total_steps=4).bind(model), "mse")
    fit(model)
    body, head = adamw(lr=lambda t: COSINE.at(t, 4)), sgd(lr=lambda t: EXPONENTIAL.at(t, 4))
    assert difference(model, expected(before, body=body, head=head)) < CLOSE


def test_jit_compiled_updates_are_the_same() -> None:
    if keras.backend.backend() == "torch":
        pytest.skip("inductor needs a compiler, and jax compiles in every check")
    assert fitted(Plan([BODY, HEAD])) < CLOSE
