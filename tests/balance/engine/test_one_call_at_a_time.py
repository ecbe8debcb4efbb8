"""A balancer is in one call at a time: what comes between, from a hook or another thread, is refused."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from groupwise.balance import FAMO, Balancer, CAGrad, GradDrop, Method, Uncertainty
from groupwise.errors import BalanceError
from tests.balance.engine.test_all_or_nothing import Twins, positive

METHODS: list[Callable[[], Method]] = [CAGrad, GradDrop, Uncertainty, FAMO]
CALLS: dict[str, Callable[[Balancer, dict[str, Tensor]], object]] = {
    "backward": lambda balancer, losses: balancer.backward(losses),
    "accumulate": lambda balancer, losses: balancer.accumulate(losses),
    "after_step": lambda balancer, losses: balancer.after_step({task: x.item() for task, x in losses.items()}),
    "end_epoch": lambda balancer, _: balancer.end_epoch(),
    "discard": lambda balancer, _: balancer.discard(),
    "load_state_dict": lambda balancer, _: balancer.load_state_dict(balancer.state_dict()),
}


@contextmanager
def between(tensor: Tensor, work: Callable[[], object]) -> Iterator[None]:
    """Inside, work is done each time the gradient of a tensor is computed."""

    def hook(gradient: Tensor) -> None:
        with torch.enable_grad():
            work()

    handle = tensor.register_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_within_a_call_is_refused_and_the_outer_one_goes_on(name: str, make: Callable[[], Method]) -> None:
    twins = Twins(make)
    balancer, model = twins.balancers[0], twins.models[0]
    refused: list[str] = []

    def work() -> None:
        with pytest.raises(BalanceError, match=f"{name} is called while backward of the same balancer"):
            CALLS[name](balancer, positive(model))
        refused.append(name)

    with between(model.trunk[0].weight, work):
        balancer.backward(positive(model))
    twins.balancers[1].backward(positive(twins.models[1]))
    assert refused
    twins.go_on_alike()


def test_a_refusal_that_comes_out_leaves_no_trace() -> None:
    twins = Twins(CAGrad)
    balancer, model = twins.balancers[0], twins.models[0]
    with between(model.trunk[0].weight, lambda: balancer.backward(positive(model))):
        assert twins.fails(lambda: balancer.backward(positive(model)), BalanceError)
    twins.go_on_alike()


def test_a_balancer_serves_one_thread_at_a_time() -> None:
    twins = Twins(CAGrad)
    balancer, model = twins.balancers[0], twins.models[0]
    losses, refused = positive(model), []

    def other() -> None:
        with pytest.raises(BalanceError, match="another thread: give each a balancer of its own"):
            balancer.backward(losses)
        refused.append(True)

    def work() -> None:
        if not refused:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()

    with between(model.trunk[0].weight, work):
        balancer.backward(positive(model))
    twins.balancers[1].backward(positive(twins.models[1]))
    assert refused
    twins.go_on_alike()


def test_its_state_may_be_asked_for_meanwhile_and_is_that_before_the_call() -> None:
    twins = Twins(CAGrad)
    balancer, model = twins.balancers[0], twins.models[0]
    steps: list[int] = []
    with between(model.trunk[0].weight, lambda: steps.append(balancer.state_dict()["step"])):
        balancer.backward(positive(model))
    assert set(steps) == {1}
    assert balancer.step == 2


def test_another_balancer_may_work_meanwhile() -> None:
    outer, inner = Twins(CAGrad), Twins(CAGrad)
    with between(outer.models[0].trunk[0].weight, lambda: inner.balancers[0].backward(positive(inner.models[0]))):
        outer.balancers[0].backward(positive(outer.models[0]))
    outer.balancers[1].backward(positive(outer.models[1]))
    outer.go_on_alike()
