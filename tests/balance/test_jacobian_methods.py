"""Jacobians to updates: GradDrop, MetaBalance, ExcessMTL, MoCo, each against an independent twin."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchjd import aggregation

from groupwise.balance.memory import Memory
from groupwise.balance.method import JacobianMethod
from groupwise.balance.methods import ExcessMTL, GradDrop, MetaBalance, MoCo
from groupwise.balance.projection import project
from groupwise.errors import BalanceError
from tests.balance.driving import NAMES, context, reloaded, update

SPLITS = (4, 1, 7)
ALL: list[JacobianMethod] = [
    GradDrop(), GradDrop(leak=0.3, variant="renormalized"), MetaBalance(), MetaBalance(primary="depth"), ExcessMTL(),
    ExcessMTL(eta=1.0), MoCo(), MoCo(variant="normalized", rho=0.1),
]  # fmt: skip
ids = pytest.mark.parametrize("method", ALL, ids=repr)


def jacobians(steps: int, tasks: int = 3, n: int = 12, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """[steps, tasks, n] of different row norms, with an entry that is always zero and one where all agree."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(steps, tasks, n, generator=generator, dtype=torch.float64)
    rows *= torch.logspace(-1, 1, tasks, dtype=torch.float64)[:, None]
    rows[..., 0], rows[..., 1] = 0, rows[..., 1].abs()
    return rows.to(dtype)


def run(method: JacobianMethod, rows: Tensor, memory: Memory) -> Tensor:
    return torch.stack([update(method, row, memory, splits=SPLITS) for row in rows])


@ids
def test_a_run_that_is_saved_and_resumed_is_bit_equal(method: JacobianMethod) -> None:
    rows = jacobians(10, dtype=torch.float32)
    half = Memory(seed=6)
    expected = run(method, rows, Memory(seed=6))
    first = run(method, rows[:4], half)
    assert torch.equal(torch.cat([first, run(method, rows[4:], reloaded(half))]), expected)


@ids
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_update_has_the_dtype_of_the_jacobian(method: JacobianMethod, dtype: torch.dtype) -> None:
    found = run(method, jacobians(3, dtype=dtype), Memory())
    assert found.dtype == dtype
    assert found.isfinite().all()


@pytest.mark.parametrize("method", [method for method in ALL if method != MetaBalance()], ids=repr)
def test_the_order_of_the_tasks_makes_no_difference_but_to_a_primary_one(method: JacobianMethod) -> None:
    order, there, here = [2, 0, 1], Memory(seed=1), Memory(seed=1)
    for rows in jacobians(6):
        found = update(method, rows[order], there, [NAMES[i] for i in order], SPLITS)
        torch.testing.assert_close(found, update(method, rows, here, splits=SPLITS), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [2.0**-24, 2.0**24])
@pytest.mark.parametrize("method", ALL[:6], ids=repr)
def test_the_update_follows_the_scale_of_the_jacobian(method: JacobianMethod, scale: float) -> None:
    rows = jacobians(6, dtype=torch.float32)
    scaled, plain = run(method, scale * rows, Memory(seed=1)), scale * run(method, rows, Memory(seed=1))
    torch.testing.assert_close(scaled, plain, rtol=1e-5, atol=scale * 1e-6)


@pytest.mark.parametrize("method", ALL[:6], ids=repr)
def test_the_update_of_one_task_is_its_gradient(method: JacobianMethod) -> None:
    memory = Memory()
    for rows in jacobians(4, 1):
        torch.testing.assert_close(update(method, rows, memory, ["depth"], SPLITS), rows[0], rtol=1e-14, atol=0)


@ids
def test_gradients_that_are_zero_stay_zero(method: JacobianMethod) -> None:
    assert torch.equal(run(method, torch.zeros(3, 2, 12), Memory()), torch.zeros(3, 12))


@ids
def test_one_task_after_another_may_be_missing(method: JacobianMethod) -> None:
    memory = Memory()
    update(method, jacobians(1)[0], memory, splits=SPLITS)
    for i, rows in enumerate(jacobians(9)):
        present = [j for j in range(3) if i % 3 != j]
        assert update(method, rows[present], memory, [NAMES[j] for j in present], SPLITS).isfinite().all()


@pytest.mark.parametrize("method", [MetaBalance(), ExcessMTL(), MoCo()], ids=repr)
def test_other_shared_parameters_than_before_are_refused_by_name(method: JacobianMethod) -> None:
    """Of one without a name another size is another parameter; one more at the end starts afresh."""
    memory = Memory()
    update(method, torch.ones(2, 6), memory, splits=(2, 4))
    update(method, torch.ones(2, 9), memory, splits=(2, 4, 3))
    if isinstance(method, MetaBalance):
        return  # remembers a number of each, whatever its size
    with pytest.raises(BalanceError, match=r"known of task 'seg' .*: it is of other shared parameters \(name"):
        update(method, torch.ones(2, 9), memory, splits=(4, 2, 3))


def test_what_is_kept_comes_back_in_the_dtype_that_is_asked_for() -> None:
    memory = Memory()
    memory.keep_tasks("x", ["seg"], torch.ones(1, 3, dtype=torch.float64))
    found = memory.of_tasks("x", ["depth", "seg"], torch.zeros(3, dtype=torch.float32))
    assert found.dtype == torch.float32
    assert found.tolist() == [[0.0] * 3, [1.0] * 3]


@pytest.mark.parametrize("leak", [None, [0.0, 0.3, 1.0]])
def test_grad_drop_is_that_of_torchjd_on_the_same_draws(leak: list[float] | None) -> None:
    method = GradDrop() if leak is None else GradDrop(leak=dict(zip(NAMES, leak, strict=False)))
    twin = aggregation.GradDrop(leak=None if leak is None else torch.tensor(leak))
    memory = Memory(seed=9)
    torch.manual_seed(9)
    for rows in jacobians(5, dtype=torch.float32)[..., 1:]:  # where all gradients are zero, TorchJD divides by zero
        torch.testing.assert_close(update(method, rows, memory), twin(rows))


def test_grad_drop_draws_one_sign_per_entry_and_is_the_sum_on_average() -> None:
    column = torch.tensor([3.0, -1.0, -0.5])
    found = update(GradDrop(), column[:, None].expand(3, 40_000), Memory())
    assert set(found.tolist()) == {3.0, -1.5}
    share = (found > 0).double().mean().item()
    assert abs(share - 3 / 4.5) < 5 * (share * (1 - share) / 40_000) ** 0.5
    assert found.mean().item() == pytest.approx(column.sum().item(), abs=0.06)


def test_grad_drop_renormalized_has_the_norm_of_the_sum_and_a_leak_of_one_is_the_sum() -> None:
    rows = jacobians(1, 4)[0]
    found = update(GradDrop(variant="renormalized"), rows, Memory())
    assert found.norm().item() == pytest.approx(rows.sum(0).norm().item())
    plain = update(GradDrop(), rows, Memory())
    torch.testing.assert_close(found / found.norm(), plain / plain.norm())
    torch.testing.assert_close(update(GradDrop(leak=1), rows, Memory()), rows.sum(0))


@pytest.mark.parametrize("leak", [1.5, -0.1, {"seg": 2.0}])
def test_a_leak_is_a_share(leak: float | dict[str, float]) -> None:
    with pytest.raises(BalanceError, match=r"GradDrop: leak: .* is not from 0 to 1"):
        GradDrop(leak=leak)


def meta_balanced(rows: Tensor, relax: float, beta: float, primary: int) -> Tensor:
    """The published loop, one parameter tensor and one task after the other."""
    norms, found = np.zeros((rows.shape[1], len(SPLITS))), []
    for now in rows.numpy():
        total = []
        for p, part in enumerate(np.split(now, np.cumsum(SPLITS)[:-1], axis=1)):
            size = np.zeros(part.shape[1])
            order = [primary, *(i for i in range(len(part)) if i != primary)]
            for i in order:
                norms[i, p] = beta * norms[i, p] + (1 - beta) * np.linalg.norm(part[i])
                size += relax * part[i] * norms[primary, p] / norms[i, p] + (1 - relax) * part[i]
            total.append(size)
        found.append(np.concatenate(total))
    return torch.from_numpy(np.array(found))


@pytest.mark.parametrize(("relax", "beta", "primary"), [(0.7, 0.9, 0), (0.2, 0.0, 1), (1.0, 0.5, 2)])
def test_meta_balance_is_the_published_loop(relax: float, beta: float, primary: int) -> None:
    rows = jacobians(20)
    method = MetaBalance(primary=NAMES[primary] if primary else None, relax=relax, beta=beta)
    torch.testing.assert_close(run(method, rows, Memory()), meta_balanced(rows, relax, beta, primary))


def test_meta_balance_without_relaxing_is_the_sum() -> None:
    rows = jacobians(4)
    torch.testing.assert_close(run(MetaBalance(relax=0), rows, Memory()), rows.sum(1))


def test_the_primary_task_is_the_first_ever_seen_and_its_norms_wait() -> None:
    memory, method = Memory(), MetaBalance(relax=1.0, beta=0.0)
    update(method, torch.tensor([[3.0, 4.0]]), memory, ["depth"])
    found = update(method, torch.tensor([[0.0, 1.0]]), memory, ["seg"])
    assert found.tolist() == [0.0, 5.0]
    found = update(method, torch.tensor([[0.0, 1.0], [2.0, 0.0]]), memory, ["seg", "depth"])
    assert found.tolist() == [2.0, 2.0]


def test_a_primary_task_that_no_batch_had_is_named() -> None:
    with pytest.raises(
        BalanceError, match="no batch has had the primary task yet: unknown task 'dept'; did you mean 'd"
    ):
        update(MetaBalance(primary="dept"), torch.ones(2, 3), Memory())
    with pytest.raises(BalanceError, match="MetaBalance: beta: 1 would never look at a gradient"):
        MetaBalance(beta=1)


@pytest.mark.parametrize("eta", [0.01, 1.0])
def test_excess_mtl_is_that_of_torchjd_with_the_first_update_as_its_warm_up(eta: float) -> None:
    twin = aggregation.ExcessMTL(robust_step_size=eta, n_warmup_steps=1)
    rows = 1e4 * jacobians(30)  # so that TorchJD's 1e-7 is nothing
    found = run(ExcessMTL(eta=eta), rows, Memory())
    torch.testing.assert_close(found, torch.stack([twin(row) for row in rows]), rtol=1e-6, atol=1e-6)


def test_excess_mtl_gives_weight_to_the_task_whose_excess_is_left() -> None:
    memory, method = Memory(), ExcessMTL(eta=0.5)
    for step in range(20):
        update(method, torch.tensor([[1.0, 0.0], [0.0, 0.7**step]]), memory)
    first, second = update(method, torch.eye(2), memory).tolist()
    assert first + second == pytest.approx(1)
    assert first > 0.6


def moco(rows: Tensor, method: MoCo) -> Tensor:
    """The recurrences in numpy, with the projection by bisection."""

    def simplex(v: np.ndarray) -> np.ndarray:
        low, high = v.min() - 1, v.max()
        for _ in range(200):
            mid = (low + high) / 2
            low, high = (mid, high) if np.maximum(v - mid, 0).sum() > 1 else (low, mid)
        return np.maximum(v - low, 0)

    t = rows.shape[1]
    y, w, found = np.zeros(rows.shape[1:]), np.full(t, 1 / t), []
    norms = rows.norm(dim=2, keepdim=True) if method.variant == "normalized" else 1
    for k, g in enumerate((rows / norms).numpy(), 1):
        y = y - method.beta / k**method.beta_decay * (y - g)
        w = simplex(w - method.gamma / k**method.gamma_decay * (y @ y.T + method.rho * np.eye(t)) @ w)
        found.append(w @ y)
    return torch.from_numpy(np.array(found))


@pytest.mark.parametrize(
    "method", [MoCo(), MoCo(rho=0.5, beta=1.0, beta_decay=0.0), MoCo(variant="normalized")], ids=repr
)
def test_moco_is_its_recurrences(method: MoCo) -> None:
    rows = jacobians(25)
    torch.testing.assert_close(run(method, rows, Memory()), moco(rows, method))


def test_moco_finds_the_least_norm_point_of_gradients_that_stand_still() -> None:
    rows = torch.tensor([[2.0, 1.0, 0.0], [-1.0, 1.0, 0.5]], dtype=torch.float64)
    method, memory = MoCo(beta=1.0, beta_decay=0.0, gamma_decay=0.0), Memory()
    found = torch.stack([update(method, rows, memory) for _ in range(200)])[-1]
    difference = rows[1] - rows[0]
    weight = (difference @ rows[1]) / (difference @ difference)
    torch.testing.assert_close(found, weight * rows[0] + (1 - weight) * rows[1])


def test_moco_normalized_tracks_unit_gradients_times_their_losses() -> None:
    told = context(torch.tensor([2.0, 0.5]), splits=(2,))
    method = MoCo(beta=1.0, beta_decay=0.0, gamma=1e-12, variant="normalized")
    found = method.update(torch.tensor([[3.0, 4.0], [0.0, 7.0]], dtype=torch.float64), told, Memory())
    torch.testing.assert_close(found, torch.tensor([0.6, 0.8 + 0.25], dtype=torch.float64))
    with pytest.raises(BalanceError, match="MoCo: beta: 2 is more than 1"):
        MoCo(beta=2)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12))
def test_the_projection_onto_the_simplex_satisfies_its_optimality_conditions(values: list[float]) -> None:
    v = torch.tensor(values, dtype=torch.float64)
    w = project(v)
    assert w.min() >= 0
    assert w.sum().item() == pytest.approx(1, abs=1e-9)
    theta = (v - w)[w > 0]
    assert (theta - theta[0]).abs().max() < 1e-9
    assert (v[w == 0] <= theta[0] + 1e-9).all()
