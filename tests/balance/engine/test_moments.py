"""The moments of a run besides `backward`: micro-batches, old weights, losses after the step, held-out losses."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from groupwise.balance import (
    FAMO,
    AutoLambda,
    Balancer,
    CAGrad,
    Equal,
    FromGramian,
    FromLosses,
    LogSum,
    LossMethod,
    Memory,
    Method,
    MethodContext,
    Periodic,
    Static,
    Uncertainty,
    methods,
)
from groupwise.errors import BalanceError, GroupwiseWarning
from groupwise.schedules import linear
from tests.balance.engine.models import KINDS, built
from tests.balance.engine.reference import assert_same, crooked, gradients, reference


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_add_up_by_task(kind: str) -> None:
    """Here three times the same batch, the second without the first task."""
    expected, model = reference(kind), built(kind)
    first, *others = expected.tasks
    balancer = Balancer(FromGramian(crooked))
    balancer.accumulate(model.losses())
    losses = model.losses()
    balancer.accumulate({task: losses[task] for task in others})
    result = balancer.backward(model.losses())
    times = torch.tensor([2.0, *(3.0 for _ in others)], dtype=torch.float64)
    weights = crooked(expected.gramian() * times[:, None] * times)
    assert_same(model, expected.update(weights * times, times))
    assert result.losses[first] == pytest.approx(2 * float(expected.losses[0]))
    assert balancer.step == 1


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
def test_micro_batches_of_a_loss_method_take_its_weights_as_they_stand(heads: str) -> None:
    ours, plain = built("Plain"), built("Plain")
    balancer, by_hand = Balancer(Uncertainty(), task_only=heads), Balancer(Uncertainty(), task_only=heads)
    for update in range(3):
        state = by_hand.state_dict()
        for _ in range(2):
            by_hand.load_state_dict(state)
            by_hand.backward(plain.losses())
        by_hand.load_state_dict(state)
        by_hand.backward({task: loss * 2 for task, loss in _copy(plain).losses().items()})
        balancer.accumulate(ours.losses())
        balancer.backward(ours.losses())
        assert_same(ours, gradients(plain))
        assert balancer.step == by_hand.step == update + 1
        _assert_equal(balancer.state_dict(), by_hand.state_dict())


def _copy(model: torch.nn.Module) -> torch.nn.Module:
    other = built("Plain")
    other.load_state_dict(model.state_dict())
    return other


def _assert_equal(ours: object, theirs: object) -> None:
    if isinstance(ours, Tensor):
        assert torch.equal(ours, theirs)  # type: ignore[arg-type]
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()  # type: ignore[attr-defined]
        for key, value in ours.items():
            _assert_equal(value, theirs[key])  # type: ignore[index]
    else:
        assert ours == theirs


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
@pytest.mark.parametrize("kind", ["Plain", "PartlyShared", "Tangled", "TiedSparse"])
def test_old_weights_cost_one_backward_and_are_exact(kind: str, heads: str) -> None:
    expected, model = reference(kind), built(kind)
    balancer = Balancer(Periodic(FromGramian(crooked), n=3), task_only=heads)
    weights = crooked(expected.gramian())
    routes = []
    for _ in range(4):
        model = built(kind)
        routes.append(balancer.backward(model.losses()).route.split(":")[0])
        assert_same(model, expected.update(weights, weights if heads == "weighted" else None))
    assert routes == ["sequential", "weighted", "weighted", "sequential"]


class _Kept(LossMethod):
    """Remembers what it is told."""

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        memory.keep_tasks("before", context.tasks, losses)
        return torch.ones_like(losses)

    def after_step(self, context: MethodContext, memory: Memory) -> None:
        memory.keep_tasks("after", context.tasks, context.losses)

    def end_epoch(self, memory: Memory) -> None:
        memory.keep_run("epochs", memory.of_run("epochs", 0.0) + 1)


def test_a_method_is_told_by_name() -> None:
    model, balancer = built("Plain"), Balancer(_Kept())
    losses = model.losses()
    balancer.backward({"b": losses["b"], "a": losses["a"]})
    balancer.after_step({"a": losses["a"], "b": 0.5})
    balancer.end_epoch()
    memory = balancer.state_dict()["memory"]
    assert memory["tasks"]["before"]["a"] == losses["a"] == memory["tasks"]["after"]["a"]
    assert memory["tasks"]["after"]["b"] == 0.5
    assert memory["run"]["epochs"] == 1


def test_famo_is_told_after_the_step() -> None:
    model, balancer = built("Plain"), Balancer(FAMO())
    with pytest.raises(BalanceError, match="there was no backward yet"):
        balancer.after_step({"a": 1.0})
    weights = {}
    for told in (0.1, 10.0):
        balancer = Balancer(FAMO())
        balancer.backward(model.losses())
        balancer.after_step({"a": told, "b": 5.0, "c": 5.0})
        weights[told] = balancer.backward(model.losses()).weights["a"]
    assert weights[0.1] < weights[10.0]  # the task that fell loses weight


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_after_the_step_that_is_not_finite_leaves_its_task_out(value: float) -> None:
    ours, theirs = Balancer(FAMO()), Balancer(FAMO())
    for balancer in (ours, theirs):
        balancer.backward(built("Plain").losses())
    with pytest.warns(GroupwiseWarning, match="task 'b': its loss is"):
        ours.after_step({"a": 1.0, "b": value, "c": 0.5})
    theirs.after_step({"a": 1.0, "c": 0.5})
    losses = built("Plain").losses()
    assert ours.backward(losses).weights == theirs.backward(built("Plain").losses()).weights
    strict = Balancer(FAMO(), nonfinite="raise")
    strict.backward(built("Plain").losses())
    with pytest.raises(BalanceError, match="task 'b': its loss is"):
        strict.after_step({"b": value})


def test_a_task_after_the_step_that_no_backward_had_is_named() -> None:
    balancer, losses = Balancer(FAMO()), built("Plain").losses()
    with pytest.warns(GroupwiseWarning, match="its loss is nan"):
        balancer.backward({**losses, "b": losses["b"] * torch.nan})
    balancer.after_step({"b": 1.0})  # broken in the backward, whole now
    with pytest.raises(BalanceError, match="after_step: unknown task 'aa'; did you mean 'a'"):
        balancer.after_step({"aa": 1.0, "c": 1.0})


def test_a_weight_may_be_a_schedule() -> None:
    model, balancer = built("Plain"), Balancer(Static({"a": 1.0, "b": linear(1.0, 0.0), "c": 1.0}), total_steps=5)
    weights = [balancer.backward(model.losses()).weights["b"] for _ in range(5)]
    assert weights[0] == 1.0
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] < 0.3
    with pytest.raises(BalanceError, match="total_steps"):
        Balancer(Static({"a": linear(1.0, 0.0)})).backward({"a": model.losses()["a"]})


def test_held_out_gradients_are_compared_with_each_tasks_own() -> None:
    """One Adam step of the weights has the sign of <g_i, v>, over all parameters, heads included."""
    expected, model = reference("Plain"), built("Plain")
    method = AutoLambda(lr=0.01, primary=("a",))
    balancer = Balancer(method)
    names = sorted({name for by_leaf in expected.gradients.values() for name in by_leaf})
    alignments = expected.jacobian(names) @ expected.jacobian(names)[0]
    balancer.learn(model.losses())
    result = balancer.backward(model.losses())
    weights = torch.tensor([*result.weights.values()], dtype=torch.float64)
    torch.testing.assert_close(weights, method.init + 0.01 * alignments.sign(), rtol=1e-9, atol=1e-9)
    assert_same(model, expected.update(weights, weights))
    assert balancer.backward(model.losses()).route.startswith("weighted")


class _Aligned(LossMethod):
    """Remembers the inner products that it is told."""

    def held_out(self, tasks: Sequence[str]) -> Tensor:
        return torch.arange(1.0, len(tasks) + 1, dtype=torch.float64)

    def learn(self, alignments: Tensor, context: MethodContext, memory: Memory) -> None:
        memory.keep_tasks("alignment", context.tasks, alignments)

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        return torch.ones_like(losses)


@pytest.mark.parametrize("kind", ["Plain", "PartlyShared", "TiedSparse"])
def test_any_method_may_learn_from_held_out_losses(kind: str) -> None:
    """<g_i, v> over all that a task reaches, its own head included, in numbers."""
    expected, model = reference(kind), built(kind)
    names = sorted({name for by_leaf in expected.gradients.values() for name in by_leaf})
    jacobian = expected.jacobian(names)
    balancer = Balancer(_Aligned())
    balancer.learn(model.losses())
    balancer.backward(model.losses())
    told = balancer.state_dict()["memory"]["tasks"]["alignment"]
    held_out = torch.arange(1.0, len(expected.tasks) + 1, dtype=torch.float64) @ jacobian
    assert [float(told[task]) for task in expected.tasks] == pytest.approx((jacobian @ held_out).tolist(), rel=1e-10)


@pytest.mark.parametrize("present", [("a", "c"), ("b",), ("c", "b", "a")])
@pytest.mark.parametrize("method", [CAGrad(), LogSum(), FromGramian(crooked)], ids=lambda method: method.name)
def test_a_missing_task_is_as_if_it_had_never_been(present: tuple[str, ...], method: Method) -> None:
    """Plain's losses as a model that has only the present heads would give them."""
    whole, fewer = built("Plain"), built("Plain")
    losses = whole.losses()
    result = Balancer(method).backward({task: losses[task] for task in present})
    z = fewer.represent()
    offsets = {"a": 0, "b": 1, "c": 2}
    alone = {task: (fewer.heads[task](z) - offsets[task]).square().mean() for task in present}
    expected = Balancer(method).backward(alone)
    assert result.tasks == present
    assert result.weights == expected.weights
    assert_same(whole, gradients(fewer), tolerance=1e-14)


def test_tasks_come_and_go() -> None:
    """Each update is what the method says of the tasks that are there."""
    balancer = Balancer(FromGramian(crooked))
    for present in (("a", "b"), ("c",), ("b", "c", "a"), ("c", "a")):
        model = built("Plain")
        losses = model.losses()
        balancer.backward({task: losses[task] for task in present})
        expected = reference("Plain", present)
        weights = crooked(expected.gramian())
        if len(present) > 1:
            assert_same(model, expected.update(weights))
    assert balancer.state_dict()["tasks"] == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["Plain", "PartlyShared", "TwoFeatures"])
def test_micro_batches_balance_what_the_joint_batch_balances(kind: str) -> None:
    """With parameters=, of which one is left out: that one is task-only in both."""
    joint, apart = built(kind), built(kind)
    balancers = [
        Balancer(FromGramian(crooked), parameters=[*model.parameters()][1:], task_only="unweighted")
        for model in (joint, apart)
    ]
    balancers[0].backward(joint.losses())
    first, *others = apart.losses()
    balancers[1].accumulate({first: apart.losses()[first]})
    losses = apart.losses()
    balancers[1].backward({task: losses[task] for task in others})
    assert_same(apart, gradients(joint), tolerance=1e-13)


TWICE: dict[str, Callable[[], Method]] = {
    "one over the loss": lambda: FromLosses(torch.reciprocal),
    "softplus": lambda: Uncertainty(variant="softplus"),
    "mean": lambda: Equal(reduction="mean"),
    **{name: methods.METHODS[name] for name in ("LogSum", "GeometricMean", "STCH", "FAMO", "CoV", "RLW", "DWA")},
    **{name: methods.METHODS[name] for name in ("Uncertainty", "RevisedUncertainty", "IMTL_L", "AutoLambda", "Equal")},
}


@pytest.mark.parametrize("split", ["by task", "by sample"])
@pytest.mark.parametrize("name", TWICE)
def test_the_weights_that_are_told_are_those_that_were_used(name: str, split: str) -> None:
    """Under a loss method too, micro-batches make the update of the joint batch."""
    joint, apart = built("Plain"), built("Plain")
    balancers = [Balancer(TWICE[name](), parameters=model) for model in (joint, apart)]
    for _ in range(3):
        joint.zero_grad()
        apart.zero_grad()
        expected = balancers[0].backward(joint.losses())
        if split == "by task":
            balancers[1].accumulate({"a": apart.losses()["a"]})
            losses = apart.losses()
            told = balancers[1].backward({task: losses[task] for task in "bc"})
        else:
            balancers[1].accumulate({task: loss * 0.25 for task, loss in apart.losses().items()})
            told = balancers[1].backward({task: loss * 0.75 for task, loss in apart.losses().items()})
        assert told.weights == pytest.approx(expected.weights, rel=1e-12)
        assert_same(apart, gradients(joint), tolerance=1e-12)


@pytest.mark.parametrize("method", [Equal(), Static({"a": 1.0, "b": 2.0, "c": 1.0}), Uncertainty(), CAGrad()], ids=str)
@pytest.mark.parametrize("broken", [0, 1])
def test_a_broken_micro_batch_skips_the_step_of_every_method(method: Method, broken: int) -> None:
    model, balancer = built("Plain"), Balancer(method, nonfinite="skip_step")
    for i in range(2):
        losses = model.losses()
        losses |= {"b": losses["b"] * torch.nan} if i == broken else {}
        if i == 0:
            balancer.accumulate(losses)
        else:
            with pytest.warns(GroupwiseWarning, match="skip_step"):
                result = balancer.backward(losses)
    assert (result.weights, balancer.step, list(result.skipped)) == ({}, 0, ["b"])
    assert not gradients(model)
