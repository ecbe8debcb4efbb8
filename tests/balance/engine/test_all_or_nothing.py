"""A call that raises has changed nothing: not the method's memory, not a generator, no sum, no `.grad`, no hook.

The next update is then that of a balancer that never saw the failure.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from groupwise.balance import (
    DWA,
    FAMO,
    RLW,
    AutoLambda,
    Balancer,
    CAGrad,
    FromGramian,
    GradDrop,
    Memory,
    Method,
    MoCo,
    NashMTL,
    PCGrad,
    Smoothed,
    Static,
    Uncertainty,
    UPGrad,
    methods,
)
from groupwise.balance.engine import accumulate_grad as writing
from groupwise.balance.engine import summary
from groupwise.balance.engine.rows import Update
from groupwise.errors import BalanceError, StateError
from tests.balance.engine.faults import armed, assert_untouched, brittle, picture, survived
from tests.balance.engine.models import MultiTask, built
from tests.balance.engine.test_state import method_of

ERRORS = (RuntimeError, torch.OutOfMemoryError, KeyboardInterrupt)
WAYS: dict[str, dict[str, str]] = {
    "sequential": {"route": "sequential"},
    "gramian": {"route": "gramian"},
    "features": {"route": "features"},
    "layer": {"at": "trunk.2"},
}
Kinds = type[BaseException] | tuple[type[BaseException], ...]
Call = Callable[[Balancer, dict[str, Tensor]], object]


def backward(balancer: Balancer, losses: dict[str, Tensor]) -> object:
    return balancer.backward(losses)


def accumulate(balancer: Balancer, losses: dict[str, Tensor]) -> object:
    return balancer.accumulate(losses)


def positive(model: MultiTask) -> dict[str, Tensor]:
    return {task: loss + 0.1 for task, loss in model.losses().items()}


class Twins:
    """Two balancers on equal models that have done the same so far: an update, with `.grad` left where it was."""

    def __init__(self, make: Callable[[], Method], **arguments: Any) -> None:
        self.models = [brittle(built("Plain")), brittle(built("Plain"))]
        self.methods = [make(), make()]
        pairs = zip(self.models, self.methods, strict=True)
        self.balancers = [Balancer(method, parameters=model, total_steps=9, **arguments) for model, method in pairs]
        self.each(backward)
        self.models[0].heads["a"].weight.grad = self.models[1].heads["a"].weight.grad = None

    def each(self, call: Call) -> None:
        for balancer, model in zip(self.balancers, self.models, strict=True):
            call(balancer, positive(model))

    def picture(self) -> dict[str, Any]:
        return picture(self.balancers[0], self.models[0], self.methods[0])

    def fails(self, work: Callable[[], object], error: Kinds) -> bool:
        """Whether the first of the two raised; it is as before then."""
        before = self.picture()
        if not survived(work, error):
            return False
        assert_untouched(before, self.picture())
        return True

    def go_on_alike(self) -> None:
        self.each(backward)
        for one, other in zip(self.models[0].parameters(), self.models[1].parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)  # type: ignore[arg-type]
        states = [balancer.state_dict() for balancer in self.balancers]
        assert_untouched(states[0]["memory"], states[1]["memory"])
        assert states[0]["step"] == states[1]["step"]


def every_failing_backward(twins: Twins, call: Call) -> int:
    """Let the first, the second, … backward within the call raise; how many there are."""
    for count in range(1, 40):
        error = ERRORS[count % len(ERRORS)]()
        losses = positive(twins.models[0])
        with armed(count, error):
            failed = twins.fails(lambda now=losses: call(twins.balancers[0], now), (type(error), BalanceError))  # type: ignore[misc]
        if not failed:
            call(twins.balancers[1], positive(twins.models[1]))
            return count - 1
    raise AssertionError("it fails for ever")


@pytest.mark.parametrize("call", [backward, accumulate])
@pytest.mark.parametrize("name", [name for name in methods.METHODS if method_of(name) is not None])
def test_a_backward_that_raises_leaves_no_trace(name: str, call: Call) -> None:
    twins = Twins(lambda: method_of(name))  # type: ignore[arg-type, return-value]
    assert every_failing_backward(twins, call) >= 5
    twins.go_on_alike()


@pytest.mark.parametrize("heads", ["unweighted", "weighted"])
@pytest.mark.parametrize("way", WAYS)
def test_nor_does_it_on_any_way_to_the_gradients(way: str, heads: str) -> None:
    for make in (CAGrad, NashMTL, PCGrad):
        twins = Twins(make, task_only=heads, **WAYS[way])
        assert every_failing_backward(twins, backward) >= 5
        twins.go_on_alike()


@pytest.mark.parametrize("make", [Uncertainty, RLW, FAMO])
def test_nor_does_it_where_heads_are_apart_from_the_weighted_backward(make: Callable[[], Method]) -> None:
    twins = Twins(make, task_only="unweighted")
    assert every_failing_backward(twins, backward) >= 5
    twins.go_on_alike()


def test_nor_does_one_of_a_later_micro_batch() -> None:
    for make in (CAGrad, MoCo, FAMO, Uncertainty):
        twins = Twins(make)
        twins.each(accumulate)
        assert every_failing_backward(twins, accumulate) >= 5
        assert every_failing_backward(twins, backward) >= 5
        twins.go_on_alike()


def test_a_generator_that_was_given_is_put_back() -> None:
    for cls in (RLW, PCGrad, GradDrop):
        twins = Twins(lambda kind=cls: kind(generator=torch.Generator().manual_seed(3)))  # type: ignore[misc]
        _failing_method(twins)
        twins.go_on_alike()


def test_so_is_one_that_an_inner_method_was_given() -> None:
    twins = Twins(lambda: Smoothed(RLW(generator=torch.Generator().manual_seed(3))))
    _failing_method(twins)
    twins.go_on_alike()


def _failing_method(twins: Twins) -> None:
    """The method raises after it has drawn and learnt."""
    cls = next(cls for cls in type(twins.methods[0]).__mro__ if {"update", "weights"} & vars(cls).keys())
    name = "update" if "update" in vars(cls) else "weights"
    inner = getattr(cls, name)

    def failing(*arguments: object) -> Tensor:
        inner(*arguments)
        raise ArithmeticError

    setattr(cls, name, failing)
    try:
        assert twins.fails(lambda: backward(twins.balancers[0], positive(twins.models[0])), ArithmeticError)
    finally:
        setattr(cls, name, inner)


@pytest.mark.parametrize("name", [name for name in methods.METHODS if method_of(name) is not None])
def test_a_method_that_raises_has_learnt_nothing(name: str) -> None:
    twins = Twins(lambda: method_of(name))  # type: ignore[arg-type, return-value]
    _failing_method(twins)
    twins.go_on_alike()


@pytest.mark.parametrize("make", [CAGrad, MoCo, Uncertainty])
def test_what_was_written_before_the_failure_is_taken_back(
    make: Callable[[], Method], monkeypatch: pytest.MonkeyPatch
) -> None:
    for accumulated in (False, True):
        twins = Twins(make)
        if accumulated:
            twins.each(accumulate)

        def failing(*_: object) -> None:
            raise ArithmeticError

        with monkeypatch.context() as patch:
            patch.setattr(summary, "of_weights", failing)
            patch.setattr(summary, "of_direction", failing)
            assert twins.fails(lambda: backward(twins.balancers[0], positive(twins.models[0])), ArithmeticError)  # noqa: B023
        twins.go_on_alike()


def test_a_write_that_fails_half_way_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    add = writing.add

    def half(updates: list[Update], owned: bool = False) -> None:
        found = [*updates]
        add(found[: len(found) // 2])
        raise KeyboardInterrupt

    for make in (CAGrad, GradDrop):
        twins = Twins(make)
        with monkeypatch.context() as patch:
            patch.setattr(writing, "add", half)
            assert twins.fails(lambda: backward(twins.balancers[0], positive(twins.models[0])), KeyboardInterrupt)  # noqa: B023
        twins.go_on_alike()


def test_a_gradient_keeps_its_object_and_its_content() -> None:
    twins = Twins(Uncertainty)
    bias = twins.models[0].trunk[0].bias
    context = bias.grad
    with armed(5, RuntimeError("late")):
        assert twins.fails(lambda: backward(twins.balancers[0], positive(twins.models[0])), RuntimeError)
    assert bias.grad is context


def test_a_task_that_is_not_finite_under_raise_leaves_no_trace() -> None:
    for call in (backward, accumulate):
        for make in (Uncertainty, CAGrad, MoCo):
            twins = Twins(make, nonfinite="raise")
            losses = positive(twins.models[0])
            losses["b"] = losses["b"] * torch.nan
            if call is backward or make is Uncertainty:
                assert twins.fails(lambda c=call, t=twins, now=losses: c(t.balancers[0], now), BalanceError)  # type: ignore[misc]
                twins.go_on_alike()


def test_the_other_calls_change_nothing_where_they_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    twins = Twins(lambda: FAMO(floor=dict.fromkeys("abc", 0.05)))
    first = twins.balancers[0]
    assert twins.fails(lambda: first.after_step({"a": 1.0, "b": 0.01, "c": 1.0}), BalanceError)
    assert twins.fails(lambda: first.after_step({"a": 1.0, "d": 1.0}), BalanceError)
    assert twins.fails(lambda: first.forget("d"), BalanceError)
    twins.go_on_alike()

    twins, inner = Twins(DWA), DWA.end_epoch

    def failing(*arguments: Any) -> None:
        inner(*arguments)
        raise ArithmeticError

    with monkeypatch.context() as patch:
        patch.setattr(DWA, "end_epoch", failing)
        assert twins.fails(twins.balancers[0].end_epoch, ArithmeticError)
    twins.go_on_alike()


def test_learning_that_fails_keeps_the_held_out_batch_before() -> None:
    twins = Twins(AutoLambda)
    for given in (False, True):
        if given:
            twins.each(lambda balancer, losses: balancer.learn(losses))
        assert every_failing_backward(twins, lambda balancer, losses: balancer.learn(losses)) >= 5
    twins.go_on_alike()


@pytest.mark.parametrize(
    "part",
    [
        {"generator": torch.zeros(3)},
        {"generator": None},
        {"tasks": None},
        {"tasks": {"log variance": {"a": 1.0}}},
        {"tasks": {"log variance": {3: torch.zeros(4)}}},
        {"rows": {"x": {"a": torch.zeros(2)}}},
        {"pairs": {"x": torch.zeros(2)}},
        {"run": {"x": {}}},
        {"parts": {"inner": {}}},
        {"parts": {"inner": None}},
        {"parts": []},
        {"more": {}},
    ],
    ids=str,
)
def test_a_state_that_is_refused_changes_nothing(part: dict[str, object]) -> None:
    twins = Twins(Uncertainty)
    state = Balancer(Uncertainty()).state_dict()
    broken = {**state, "memory": {**state["memory"], **part}}
    assert twins.fails(lambda: twins.balancers[0].load_state_dict(broken), StateError)
    memory = twins.balancers[0]._state.memory
    before = memory.state_dict()
    with pytest.raises(StateError, match="this is not the state of a"):
        memory.load_state_dict(broken["memory"])
    assert_untouched(before, memory.state_dict())
    twins.go_on_alike()


def test_a_state_nested_without_end_is_refused() -> None:
    state = Balancer(Uncertainty()).state_dict()
    deep: dict[str, object] = {"tasks": {}, "pairs": {}, "run": {}, "parts": {}}
    for _ in range(3000):
        deep = {"tasks": {}, "pairs": {}, "run": {}, "parts": {"inner": deep}}
    with pytest.raises(StateError, match="not the state of a balanc"):
        Balancer(Uncertainty()).load_state_dict({**state, "memory": {**state["memory"], "parts": {"inner": deep}}})
    with pytest.raises(StateError, match="this is not the state of a balancing method"):
        Memory().load_state_dict({**state["memory"], "parts": {"inner": deep}})


@pytest.mark.parametrize("make", [CAGrad, MoCo, FAMO])
def test_discarding_drops_what_was_accumulated(make: Callable[[], Method]) -> None:
    twins = Twins(make)
    first, model = twins.balancers[0], twins.models[0]
    first.accumulate(positive(model))
    first.discard()
    first.state_dict()
    twins.go_on_alike()


def test_discarding_drops_a_held_out_batch_and_is_free_where_nothing_is_under_way() -> None:
    twins = Twins(AutoLambda)
    twins.balancers[0].discard()
    twins.balancers[0].learn(positive(twins.models[0]))
    twins.balancers[0].discard()
    assert twins.balancers[0].backward(positive(twins.models[0])).route.startswith("weighted")
    twins.balancers[1].backward(positive(twins.models[1]))
    twins.go_on_alike()


def test_what_was_weighted_at_once_stays_in_the_gradients_until_they_are_zeroed() -> None:
    model = built("Plain")
    balancer = Balancer(Static({"a": 1.0, "b": 2.0, "c": 3.0}))
    balancer.accumulate(model.losses())
    balancer.discard()
    assert model.trunk[0].weight.grad is not None
    model.zero_grad()
    result = balancer.backward(model.losses())
    assert result.losses["a"] == pytest.approx(float(built("Plain").losses()["a"].detach()))


def test_the_engine_is_left_to_work_on_drafts_alone() -> None:
    """What the other tests rely on: the state of a balancer is replaced, never changed."""
    model, balancer = built("Plain"), Balancer(UPGrad())
    for call in (balancer.accumulate, balancer.backward):
        before = balancer._state
        call(model.losses())
        assert balancer._state is not before


def test_rows_that_are_added_up_are_not_shared_with_who_made_them() -> None:
    """A kernel may hand out the same memory at each backward."""

    class Workspace(torch.autograd.Function):
        memory = torch.zeros(3, dtype=torch.float64)

        @staticmethod
        def forward(ctx: Any, weight: Tensor, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return weight @ x

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
            return torch.mul(gradient, ctx.saved_tensors[0], out=Workspace.memory), None

    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[1.0, 2.0, 3.0], [-4.0, 0.5, 1.0], [0.0, 7.0, 2.0], [5.0, 1.0, 1.0]], dtype=torch.float64)
    balancer = Balancer(FromGramian(lambda gramian: gramian.new_tensor([1.0, 10.0])))
    balancer.accumulate({"a": Workspace.apply(weight, x[0]), "b": Workspace.apply(weight, x[1])})
    balancer.backward({"a": Workspace.apply(weight, x[2]), "b": Workspace.apply(weight, x[3])})
    assert torch.equal(weight.grad, x[0] + x[2] + 10 * (x[1] + x[3]))  # type: ignore[arg-type]
