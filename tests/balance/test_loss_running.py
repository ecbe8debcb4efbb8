"""Weights from what the losses did so far: averages of epochs and windows, variation; every state resumes."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchjd import scalarization

from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod
from groupwise.balance.methods import (
    DWA,
    FAMO,
    IMTL_L,
    RLW,
    STCH,
    AutoLambda,
    CoV,
    Equal,
    GeometricMean,
    LogSum,
    RevisedUncertainty,
    Static,
    Uncertainty,
)
from groupwise.errors import BalanceError
from groupwise.schedules import linear
from tests.balance.driving import NAMES, positive, reloaded, run, weights

TABLE = {name: float(i + 1) for i, name in enumerate(NAMES)}
FLOOR = dict.fromkeys(NAMES, -1.0)
ORDERLESS: list[LossMethod] = [
    Equal(), Equal(reduction="mean"), Static(TABLE), LogSum(), GeometricMean(), Uncertainty(), RevisedUncertainty(),
    Uncertainty(variant="softplus"), IMTL_L(), DWA(), DWA(window=3), CoV(), STCH(preference=TABLE), FAMO(floor=FLOOR),
    AutoLambda(lr=0.1),
]  # fmt: skip
ALL = [*ORDERLESS, RLW(), RLW(variant="dirichlet"), Static({**TABLE, "seg": linear(0.0, over="10 steps")})]
ids = pytest.mark.parametrize("method", ALL, ids=repr)


@ids
def test_a_run_that_is_saved_and_resumed_is_bit_equal(method: LossMethod) -> None:
    losses = positive(14, 3)
    whole, half = Memory(seed=4), Memory(seed=4)
    expected = torch.cat([run(method, losses[:6], whole), run(method, losses[6:], whole)])
    first = run(method, losses[:6], half)
    assert torch.equal(torch.cat([first, run(method, losses[6:], reloaded(half))]), expected)


@pytest.mark.parametrize("method", ORDERLESS, ids=repr)
def test_the_order_of_the_tasks_makes_no_difference(method: LossMethod) -> None:
    losses, order = positive(12, 4), [2, 0, 3, 1]
    shuffled = run(method, losses[:, order], Memory(), [NAMES[i] for i in order])
    torch.testing.assert_close(shuffled, run(method, losses, Memory())[:, order], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("method", ORDERLESS, ids=repr)
def test_forgetting_a_task_is_as_if_it_had_never_been(method: LossMethod) -> None:
    memory = Memory(seed=2)
    run(method, positive(7, 3), memory)
    memory.forget("normal")
    assert memory.tasks() <= {"seg", "depth"}
    again = weights(method, torch.full((1,), 0.5), memory, ["normal"])
    assert torch.equal(again, weights(method, torch.full((1,), 0.5), Memory(seed=2), ["normal"]))


@ids
def test_one_task_after_another_may_be_missing(method: LossMethod) -> None:
    memory, losses = Memory(), positive(12, 3)
    for i, row in enumerate(losses):
        present = [j for j in range(3) if i % 4 != j]
        found = run(method, [row[present]], memory, [NAMES[j] for j in present])
        assert found.shape == (1, len(present))
        assert found.isfinite().all()


@pytest.mark.parametrize(
    "method", [Equal(reduction="mean"), GeometricMean(), DWA(), DWA(window=2), CoV(), RLW(), STCH(), FAMO()], ids=repr
)
def test_a_single_task_is_left_alone(method: LossMethod) -> None:
    torch.testing.assert_close(run(method, positive(9, 1), Memory()), torch.ones(9, 1, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_dwa_is_that_of_torchjd_epoch_by_epoch(temperature: float) -> None:
    twin, method, memory = scalarization.DWA(temperature), DWA(temperature=temperature), Memory()
    for epoch in positive(20, 3).reshape(5, 4, 3):
        for row in epoch:
            leaf = row.clone().requires_grad_()
            twin(leaf).backward()
            torch.testing.assert_close(weights(method, row, memory), leaf.grad)
        twin.step()
        method.end_epoch(memory)
    assert weights(method, torch.ones(3), memory).std() > 0.05


def windowed(losses: Tensor, n: int) -> np.ndarray:
    """DWA over windows, from the whole history at once."""
    x, found = losses.numpy(), []
    for end in range(1, len(x) + 1):
        if end < 2 * n:
            found.append(np.ones(x.shape[1]))
            continue
        e = np.exp(x[end - n : end].mean(0) / x[end - 2 * n : end - n].mean(0) / 2)
        found.append(x.shape[1] * e / e.sum())
    return np.array(found)


def test_dwa_over_windows_compares_the_last_batches_with_those_before() -> None:
    losses = positive(20, 3)
    np.testing.assert_allclose(run(DWA(window=4), losses, Memory()).numpy(), windowed(losses, 4), rtol=1e-12)


def test_dwa_takes_a_rate_that_does_not_exist_for_one() -> None:
    memory, method = Memory(), DWA()
    for losses in ([0.0, 1.0], [0.0, 1.0]):
        weights(method, torch.tensor(losses), memory)
        method.end_epoch(memory)
    assert weights(method, torch.ones(2), memory).tolist() == [1.0, 1.0]


def test_an_epoch_without_a_task_does_not_count_for_it() -> None:
    memory, method = Memory(), DWA()
    for seg, depth in ((4.0, 1.0), (None, 2.0), (2.0, 4.0)):
        if seg is not None:
            weights(method, torch.tensor([seg]), memory, ["seg"])
        weights(method, torch.tensor([depth]), memory, ["depth"])
        method.end_epoch(memory)
    expected = 2 * torch.softmax(torch.tensor([2 / 4, 4 / 2], dtype=torch.float64) / 2, 0)
    torch.testing.assert_close(weights(method, torch.ones(2), memory), expected)
    method.end_epoch(Memory())  # before anything was seen


def varied(losses: Tensor) -> np.ndarray:
    """CoV-weighting from the whole history at once, as the paper defines it."""
    x, found = losses.numpy(), []
    ratios = np.ones_like(x)
    for t in range(len(x)):
        ratios[t] = x[t] / x[:t].mean(0) if t else 1.0
        c = ratios[:t].std(0) / ratios[:t].mean(0) if t >= 2 else np.ones(x.shape[1])
        found.append(c / c.sum())
    return np.array(found)


def test_cov_is_the_coefficient_of_variation_of_the_whole_history() -> None:
    losses = positive(40, 4)
    found = run(CoV(), losses, Memory())
    np.testing.assert_allclose(found.numpy(), varied(losses), rtol=1e-9)


def test_cov_gives_a_new_task_an_even_share_and_losses_that_stand_still_too() -> None:
    memory = Memory()
    run(CoV(), positive(6, 2), memory)
    old = weights(CoV(), torch.ones(2), memory)
    found = weights(CoV(), torch.ones(3), memory)
    assert found[2] == 1 / 3
    assert found.sum().item() == pytest.approx(1)
    assert old.sum().item() == pytest.approx(1)
    torch.testing.assert_close(run(CoV(), torch.ones(5, 2), Memory()), torch.full((5, 2), 0.5, dtype=torch.float64))
    assert run(CoV(), torch.zeros(5, 2), Memory()).tolist() == [[0.5, 0.5]] * 5


def test_cov_refuses_a_negative_loss() -> None:
    with pytest.raises(BalanceError, match="CoV is defined for losses that are not negative, and task 'depth' has"):
        weights(CoV(), torch.tensor([1.0, -1.0]), Memory())


HOMOGENEOUS = [Equal(), Static(TABLE), GeometricMean(), DWA(), DWA(window=3), CoV(), RLW(), FAMO()]


@pytest.mark.parametrize("scale", [2.0**-24, 2.0**24])
@pytest.mark.parametrize("method", HOMOGENEOUS, ids=repr)
def test_a_change_of_unit_common_to_all_tasks_changes_no_weight(method: LossMethod, scale: float) -> None:
    losses = positive(9, 3)
    scaled, plain = run(method, scale * losses, Memory()), run(method, losses, Memory())
    torch.testing.assert_close(scaled, plain, rtol=1e-9, atol=0)
