"""Weights that are learnt: what they minimise, differentiated by autograd and stepped by torch's own Adam."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus
from torchjd import scalarization

from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod
from groupwise.balance.methods import FAMO, IMTL_L, AutoLambda, RevisedUncertainty, Uncertainty
from groupwise.errors import BalanceError
from tests.balance.driving import context, positive, run, weights

STEPS = 120
Objective = Callable[[Tensor, Tensor], Tensor]
OBJECTIVES: dict[str, tuple[LossMethod, Objective]] = {
    "uncertainty": (Uncertainty(lr=0.1), lambda s, x: ((-s).exp() * x / 2 + s / 2).sum()),
    "uncertainty, softplus": (
        Uncertainty(lr=0.1, variant="softplus"),
        lambda s, x: ((-s).exp() * softplus(x) / 2 + s / 2).sum(),
    ),
    "revised uncertainty": (RevisedUncertainty(lr=0.1), lambda s, x: (x / (2 * s.exp()) + (1 + s.exp()).log()).sum()),
    "IMTL-L": (IMTL_L(lr=0.1), lambda s, x: (s.exp() * x - s).sum()),
}
SEPARATE = [Uncertainty(), Uncertainty(variant="softplus"), RevisedUncertainty(), IMTL_L(), AutoLambda()]


def learnt_by_torch(objective: Objective, losses: Tensor, lr: float) -> Tensor:
    """[steps, t]: the derivative by the losses, while Adam moves s along the derivative by s."""
    s = torch.zeros(losses.shape[1], dtype=torch.float64, requires_grad=True)
    adam, found = torch.optim.Adam([s], lr=lr), []
    for row in losses:
        leaf = row.clone().requires_grad_()
        s.grad, derivative = torch.autograd.grad(objective(s, leaf), [s, leaf])
        adam.step()
        found.append(derivative)
    return torch.stack(found)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_weights_follow_torchs_adam_on_the_objective(name: str) -> None:
    method, objective = OBJECTIVES[name]
    losses = positive(STEPS, 4)
    expected = learnt_by_torch(objective, losses, 0.1)
    torch.testing.assert_close(run(method, losses, Memory()), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("method", "twin"), [(Uncertainty(lr=0.1), "UW"), (IMTL_L(lr=0.1), "IMTLL")])
def test_they_are_those_of_torchjd_under_an_adam_of_their_own(method: LossMethod, twin: str) -> None:
    losses = positive(STEPS, 3)
    scalarizer = getattr(scalarization, twin)(3).double()
    adam, expected = torch.optim.Adam(scalarizer.parameters(), lr=0.1), []
    for row in losses:
        leaf = row.clone().requires_grad_()
        adam.zero_grad()
        scalarizer(leaf).backward()
        adam.step()
        expected.append(leaf.grad)
    torch.testing.assert_close(run(method, losses, Memory()), torch.stack(expected), rtol=1e-10, atol=0)


def test_the_revised_total_is_the_documented_example_of_its_first_implementation() -> None:
    losses = torch.tensor([1.0, 0.8], dtype=torch.float64)
    found = weights(RevisedUncertainty(), losses, Memory())
    total = (found * losses + (1 + 1 / (2 * found)).log()).sum()
    assert total.item() == pytest.approx(2.2862945, abs=1e-6)


def test_imtl_l_is_twice_uncertainty() -> None:
    losses = positive(STEPS, 3)
    torch.testing.assert_close(
        run(IMTL_L(), losses, Memory()), 2 * run(Uncertainty(), losses, Memory()), rtol=1e-6, atol=0
    )


def test_uncertainty_settles_at_half_the_inverse_loss() -> None:
    losses = torch.tensor([0.3, 4.0], dtype=torch.float64)
    found = run(Uncertainty(lr=0.05), losses.expand(800, 2), Memory())[-1]
    torch.testing.assert_close(found, 1 / (2 * losses), rtol=1e-3, atol=0)


@pytest.mark.parametrize("method", SEPARATE, ids=repr)
def test_a_task_learns_when_it_is_present_and_stands_still_when_it_is_not(method: LossMethod) -> None:
    losses, memory, alone = positive(40, 2), Memory(), []
    for i, row in enumerate(losses):
        tasks = ["seg", "depth"] if i % 3 else ["depth"]
        alone.append(run(method, [row[-len(tasks) :]], memory, tasks)[0, -1])
    torch.testing.assert_close(
        torch.stack(alone), run(method, losses[:, 1:], Memory(), ["depth"])[:, 0], rtol=0, atol=0
    )


@pytest.mark.parametrize("method", [Uncertainty(), RevisedUncertainty(), IMTL_L()], ids=repr)
def test_a_negative_loss_names_the_task_and_the_form_that_takes_it(method: LossMethod) -> None:
    message = rf"{method.name} is defined for losses that are not negative, and task 'depth' has the loss -0.5: use Unc"
    with pytest.raises(BalanceError, match=message):
        weights(method, torch.tensor([1.0, -0.5]), Memory())


def test_the_softplus_form_takes_losses_of_any_sign_and_stays_bounded() -> None:
    losses = torch.tensor([-5.0, -0.5, 0.0, 3.0], dtype=torch.float64)
    found = run(Uncertainty(lr=0.1, variant="softplus"), losses.expand(600, 4), Memory())[-1]
    torch.testing.assert_close(found, torch.sigmoid(losses) / (2 * softplus(losses)), rtol=1e-2, atol=0)


def famo_by_torchjd(losses: Tensor, after: Tensor, floor: Tensor | None, gamma: float) -> Tensor:
    scalarizer = scalarization.FAMO(losses.shape[1], min_losses=floor, weight_decay=gamma).double()
    found = []
    for row, later in zip(losses, after, strict=True):
        leaf = row.clone().requires_grad_()
        scalarizer(leaf).backward()
        scalarizer.update(later)
        found.append(leaf.grad)
    return torch.stack(found)


@pytest.mark.parametrize("gamma", [0.0, 1e-3])
@pytest.mark.parametrize("floor", [None, {"seg": -1.0, "depth": 0.0, "normal": -0.5}])
def test_famo_is_that_of_torchjd_when_told_the_losses_after_the_step(
    gamma: float, floor: dict[str, float] | None
) -> None:
    losses = positive(STEPS, 3)
    after, memory, found = losses * (1 - 0.1 * positive(STEPS, 3, seed=1) / 11), Memory(), []
    method = FAMO(gamma=gamma, floor=floor)
    for row, later in zip(losses, after, strict=True):
        found.append(weights(method, row, memory))
        method.after_step(context(later), memory)
    bound = None if floor is None else torch.tensor(list(floor.values()), dtype=torch.float64)
    expected = famo_by_torchjd(losses, after, bound, gamma)
    torch.testing.assert_close(torch.stack(found), expected, rtol=1e-5, atol=0)  # TorchJD adds 1e-8 to each loss
    torch.testing.assert_close(torch.stack(found).sum(1), torch.ones(STEPS, dtype=torch.float64))


def test_without_after_step_the_next_losses_stand_in() -> None:
    losses, memory = positive(STEPS, 3), Memory()
    told, method = Memory(), FAMO()
    for before, later in itertools.pairwise(losses):
        assert torch.equal(weights(method, before, memory), weights(method, before, told))
        method.after_step(context(later), told)


def test_famo_takes_weight_from_the_task_that_falls_fastest() -> None:
    losses = torch.tensor([0.5, 0.9], dtype=torch.float64) ** torch.arange(1, 60)[:, None]
    memory, method = Memory(), FAMO()
    for row in losses:
        weights(method, row, memory)
    assert weights(method, torch.ones(2), memory).tolist()[0] < 0.3


def test_famo_learns_only_from_tasks_of_the_last_update() -> None:
    losses, memory, method = positive(3, 3), Memory(), FAMO()
    weights(method, losses[0], memory)
    weights(method, losses[1, :2], memory)
    method.after_step(context(losses[2]), memory)  # of the third task it was not asked
    logits = memory.of_tasks("logit", ["seg", "depth", "normal"], torch.zeros(4))
    assert (logits[:, 0] != 0).tolist() == [True, True, False]


def test_famo_refuses_what_it_cannot_take() -> None:
    with pytest.raises(BalanceError, match=r"task 'depth' has the loss 0: give it a floor, FAMO\(floor=\{…\}\)"):
        weights(FAMO(), torch.tensor([1.0, 0.0]), Memory())
    floor = {"seg": 0.0, "depth": 0.5}
    with pytest.raises(BalanceError, match=r"task 'depth' has the loss -0.25: give a lower floor"):
        weights(FAMO(floor=floor), torch.tensor([1.0, 0.25]), Memory())
    with pytest.raises(BalanceError, match=r"FAMO: after_step follows a backward .*; there was no backward yet"):
        FAMO().after_step(context(torch.ones(2)), Memory())


def bilevel() -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """theta [n], the training gradients [t, n] there, and the held-out loss as a function of theta."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    b = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    theta = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    rows = [torch.autograd.grad(((a[i] @ theta - b[i]) ** 2).mean(), theta)[0] for i in range(3)]

    def held_out(at: Tensor) -> Tensor:
        return sum(((a[i] @ at - b[i] - 0.3) ** 2).mean() for i in (0, 2))  # type: ignore[return-value]

    return theta, torch.stack(rows), held_out


def test_the_derivative_of_the_held_out_loss_by_a_weight_is_minus_the_step_times_the_inner_product() -> None:
    theta, rows, held_out = bilevel()
    v = torch.autograd.grad(held_out(theta), theta)[0]
    weight, step = torch.full((3,), 0.1, dtype=torch.float64, requires_grad=True), 1e-7
    exact = torch.autograd.grad(held_out(theta.detach() - step * weight @ rows), weight)[0]
    torch.testing.assert_close(exact / -step, rows @ v, rtol=1e-5, atol=0)


def test_auto_lambda_moves_its_weights_by_adam_against_that_derivative() -> None:
    alignments = positive(STEPS, 3) - 1
    weight = torch.full((3,), 0.1, dtype=torch.float64, requires_grad=True)
    adam, method, memory = torch.optim.Adam([weight], lr=0.01, eps=0), AutoLambda(lr=0.01), Memory()
    for row in alignments:
        told = context(torch.ones(3))
        torch.testing.assert_close(method.weights(torch.ones(3), told, memory), weight.detach(), rtol=1e-10, atol=0)
        method.learn(row.float(), told, memory)
        weight.grad = -row.float().double()
        adam.step()


@pytest.mark.parametrize("scale", [2.0**-48, 2.0**48])
def test_auto_lambda_does_not_see_the_scale_of_the_gradients(scale: float) -> None:
    method, plain, scaled = AutoLambda(), Memory(), Memory()
    for row in positive(10, 2) - 1:
        method.learn(row, context(row), plain)
        method.learn(scale * row, context(row), scaled)
    assert torch.equal(weights(method, torch.ones(2), plain), weights(method, torch.ones(2), scaled))
    method.learn(torch.zeros(2), context(torch.ones(2)), still := Memory())
    assert weights(method, torch.ones(2), still).tolist() == [0.1, 0.1]


def test_a_task_that_helps_the_held_out_losses_gains_weight_and_one_that_hurts_may_pass_zero() -> None:
    method, memory = AutoLambda(lr=0.01), Memory()
    for _ in range(30):
        method.learn(torch.tensor([2.0, -1.0, 0.0]), context(torch.ones(3)), memory)
    helps, hurts, neither = weights(method, torch.ones(3), memory).tolist()
    assert helps > 0.35
    assert hurts < 0 < neither == 0.1


def test_the_held_out_losses_of_primary_tasks_count() -> None:
    assert AutoLambda().held_out(["seg", "depth"]).tolist() == [1.0, 1.0]
    assert AutoLambda(primary=["depth"]).held_out(["seg", "depth"]).tolist() == [0.0, 1.0]
    with pytest.raises(BalanceError, match=r"none of the held-out losses \(seg\) is of a primary task \(depth\)"):
        AutoLambda(primary=("depth",)).held_out(["seg"])
    with pytest.raises(BalanceError, match=r"AutoLambda: primary: 'seg' is not a list of tasks: write \[\"depth\"\]"):
        AutoLambda(primary="seg")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [Uncertainty(lr=0.1), IMTL_L(lr=0.1)], ids=lambda method: method.name)
def test_a_task_that_joins_late_or_misses_a_batch_is_stepped_by_an_adam_of_its_own_age(method: LossMethod) -> None:
    """Each task's weights are those of a run in which it was always there, alone."""
    losses = positive(12, 3)
    there = {0: range(12), 1: range(5, 12), 2: (0, 1, 4, 9, 10, 11)}
    memory, found = Memory(), {task: [] for task in there}
    for step, row in enumerate(losses):
        present = [task for task, steps in there.items() if step in steps]
        made = method.weights(row[present], context(row[present], [str(task) for task in present]), memory)
        for task, weight in zip(present, made, strict=True):
            found[task].append(weight)
    for task, steps in there.items():
        alone = run(method, losses[list(steps)][:, [task]], Memory())
        torch.testing.assert_close(torch.stack(found[task]), alone[:, 0], rtol=1e-12, atol=0)
