"""Gramian methods that remember: GradNorm, GradVac, PCD, and who comes first."""

import pytest
import torch
from torch import Tensor

from groupwise.balance.memory import Memory
from groupwise.balance.method import MethodContext
from groupwise.balance.methods import GCS, PCD, GradNorm, GradVac
from groupwise.errors import BalanceError
from tests.balance.driving import reloaded


def context(tasks: str, losses: Tensor | None = None) -> MethodContext:
    known = torch.ones(len(tasks), dtype=torch.float64) if losses is None else losses.double()
    return MethodContext(tuple(tasks), known)


def diagonal(*norms: float) -> Tensor:
    """The Gramian of orthogonal gradients of these lengths."""
    return torch.tensor(norms, dtype=torch.float64).square().diag()


def test_gradnorm_steps_along_the_derivative_of_its_objective() -> None:
    """Against autograd on sum |N_i - target|, the target detached, where no weight reaches its target."""
    norms, losses = torch.tensor([1.0, 4.0, 2.0]).double(), torch.tensor([1.0, 0.5, 0.9]).double()
    memory = Memory()
    method = GradNorm(alpha=1.5, lr=1e-3)
    method.weights(diagonal(0, 0, 0), context("abc"), memory)  # the first losses, and no step: gradients of zero
    method.weights(diagonal(1, 4, 2), context("abc", losses), memory)
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    rate = losses / losses.mean()
    (w * norms - ((w * norms).mean() * rate**1.5).detach()).abs().sum().backward()
    expected = w.detach() - 1e-3 * w.grad
    found = method.weights(diagonal(0, 0, 0), context("abc"), memory)
    torch.testing.assert_close(found, expected * 3 / expected.sum())


@pytest.mark.parametrize("variant", ["paper", "relative"])
def test_gradnorm_settles_where_every_weighted_norm_is_on_target(variant: str) -> None:
    memory, method = Memory(), GradNorm(alpha=1.0, lr=0.01, variant=variant)  # type: ignore[arg-type]
    method.weights(diagonal(0, 0, 0), context("abc"), memory)
    losses, norms = torch.tensor([0.5, 1.0, 1.5]).double(), torch.tensor([1.0, 10.0, 0.3]).double()
    for _ in range(2500):
        weights = method.weights(norms.square().diag(), context("abc", losses), memory)
    reached = weights * norms / (weights * norms).mean()
    torch.testing.assert_close(reached, losses / losses.mean(), rtol=0.05, atol=0)
    assert float(weights.sum()) == pytest.approx(3)


def test_gradnorm_is_not_thrown_past_its_target_by_a_long_gradient() -> None:
    memory, method = Memory(), GradNorm()
    method.weights(diagonal(1e6, 1.0), context("ab"), memory)
    weights = method.weights(diagonal(1e6, 1.0), context("ab"), memory)
    assert bool((weights > 0).all())


def test_gradnorm_makes_a_task_that_joins_late_start_anew() -> None:
    memory, method = Memory(), GradNorm()
    for _ in range(5):
        method.weights(diagonal(1.0, 3.0), context("ab", torch.tensor([2.0, 5.0])), memory)
    kept = reloaded(memory)
    for state in (memory, kept):
        joined = method.weights(diagonal(1.0, 3.0, 2.0), context("abc", torch.tensor([1.0, 1.0, 7.0])), state)
        assert float(joined.sum()) == pytest.approx(3)
        assert state.of_tasks("first loss", "abc", 0.0).tolist() == [2.0, 5.0, 7.0]


def test_gradnorm_names_the_task_whose_loss_has_no_rate() -> None:
    with pytest.raises(BalanceError, match=r"GradNorm compares each loss with its first, and task 'b' has the loss -1"):
        GradNorm().weights(diagonal(1, 1), context("ab", torch.tensor([1.0, -1.0])), Memory())


def vaccinated(jacobian: Tensor, targets: Tensor, beta: float) -> Tensor:
    """The paper's algorithm for two tasks, in vectors; updates `targets`."""
    total = torch.zeros_like(jacobian[0])
    for i, j in ((0, 1), (1, 0)):
        own, other, target = jacobian[i], jacobian[j], float(targets[i, j])
        cosine = float(own @ other / own.norm() / other.norm())
        if cosine < target:
            factor = own.norm() * (target * (1 - cosine**2) ** 0.5 - cosine * (1 - target**2) ** 0.5)
            own = own + factor / (other.norm() * (1 - target**2) ** 0.5) * other
            assert float(own @ other / own.norm() / other.norm()) == pytest.approx(target, abs=1e-12)
        targets[i, j] = (1 - beta) * target + beta * cosine
        total = total + own
    return total


def test_a_vaccinated_pair_has_the_cosine_that_it_had_on_average() -> None:
    generator, memory = torch.Generator().manual_seed(2), Memory()
    targets = torch.zeros(2, 2, dtype=torch.float64)
    for step in range(12):
        jacobian = torch.randn(2, 4, generator=generator, dtype=torch.float64) + 0.5
        expected = vaccinated(jacobian, targets, 0.3)
        found = jacobian.T @ GradVac(0.3).weights(jacobian @ jacobian.T, context("ab"), memory)
        torch.testing.assert_close(found, expected)
        memory = reloaded(memory) if step == 5 else memory


def test_a_pair_keeps_its_average_while_one_of_them_is_absent_or_silent() -> None:
    memory, method = Memory(), GradVac()
    jacobian = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    method.weights(jacobian @ jacobian.T, context("ab"), memory)
    average = memory.of_pairs("target cosine", ("a", "b"), 0.0)
    assert float(average[0, 1]) == pytest.approx(0.5 * 0.8)
    method.weights(diagonal(1.0, 1.0), context("ac"), memory)
    method.weights(diagonal(1.0, 0.0), context("ab"), memory)
    assert torch.equal(memory.of_pairs("target cosine", ("a", "b"), 0.0), average)


def test_corrected_averages_move_only_where_a_cosine_was_raised() -> None:
    memory = Memory()
    aligned = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    GradVac(variant="corrected").weights(aligned, context("ab"), memory)
    assert not memory.of_pairs("target cosine", ("a", "b"), 0.0).any()
    GradVac(variant="corrected").weights(torch.tensor([[1.0, -0.4], [-0.4, 1.0]]).double(), context("ab"), memory)
    assert float(memory.of_pairs("target cosine", ("a", "b"), 0.0)[0, 1]) == pytest.approx(-0.2)


def test_priority_normalises_by_a_moving_mean_with_a_correction_for_each_task() -> None:
    memory, method = Memory(), PCD(beta=0.9)
    method.weights(diagonal(1.0, 2.0), context("ab"), memory)
    method.weights(diagonal(1.0, 4.0, 3.0), context("abc"), memory)
    mean = memory.of_tasks("mean square", "abc", 0.0)
    count = memory.of_tasks("updates", "abc", 0.0)
    expected = torch.tensor([1.0, (0.9 * 0.1 * 4 + 0.1 * 16) / (1 - 0.81), 9.0]).double()
    torch.testing.assert_close(mean / (1 - 0.9**count), expected)


@pytest.mark.parametrize("method", [GCS(), PCD()], ids=str)
def test_the_first_task_ever_seen_stays_the_primary(method: GCS | PCD) -> None:
    gramian = torch.tensor([[1.0, -0.5], [-0.5, 1.0]], dtype=torch.float64)
    memory = Memory()
    first = method.weights(gramian, context("ab"), memory)
    torch.testing.assert_close(method.weights(gramian, context("ba"), reloaded(memory)), first.flip(0))
    with pytest.raises(
        BalanceError, match=r"the primary task 'a' \(the first one seen\) is absent from this update of b, c"
    ):
        method.weights(gramian, context("bc"), memory)
    memory.forget("a")
    assert float(method.weights(gramian, context("bc"), memory)[0]) > 0
