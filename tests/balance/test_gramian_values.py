"""What each Gramian method returns: published values, closed forms, the variants on which the literature disagrees."""

import pytest
import torch
from torch import Tensor

from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, MethodContext
from groupwise.balance.methods import (
    GCS,
    IMTL_G,
    MGDA,
    PCD,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    GradientNormScaling,
    GradVac,
    NashMTL,
    PCGrad,
    RandomWeights,
    UPGrad,
)
from groupwise.balance.methods.pcgrad import random_orders
from groupwise.errors import BalanceError

J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)


def update(
    method: GramianMethod, jacobian: Tensor, losses: Tensor | None = None, memory: Memory | None = None
) -> Tensor:
    """The update on tasks a, b, …"""
    known = torch.ones(len(jacobian), dtype=torch.float64) if losses is None else losses.double()
    context = MethodContext(tuple("abcdefgh"[: len(jacobian)]), known)
    return jacobian.T @ method.weights(jacobian @ jacobian.T, context, memory or Memory())


def drawn(k: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(k, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PUBLISHED: dict[GramianMethod, tuple[float, float]] = {
    MGDA(): (0.0, 1.0),
    PCGrad(): (0.5848, 3.8012),
    PCGrad("mean"): (0.2924, 1.9006),
    GradVac(): (0.5848, 3.8012),
    IMTL_G(): (0.0767, 1.0),
    AlignedMTL(): (0.2133, 0.9673),
    AlignedMTL("sum"): (0.4266, 1.9347),
    ConFIG(): (0.1588, 2.0706),
    CAGrad(): (0.1835, 1.2041),
    CAGrad(variant="1+c"): (0.1835 / 1.5, 1.2041 / 1.5),
    CAGrad(variant="1+c^2"): (0.1835 / 1.25, 1.2041 / 1.25),
    FairGrad(): (0.0766, 0.9985),
    NashMTL(): (0.0542, 0.7061),
    NashMTL(max_norm=None): (0.0766, 0.9985),
    UPGrad(): (0.2924, 1.9006),
    DualProj(): (0.5556, 1.1111),
}


@pytest.mark.parametrize("method", PUBLISHED, ids=str)
def test_two_gradients_in_conflict_give_the_published_update(method: GramianMethod) -> None:
    first, other = PUBLISHED[method]
    torch.testing.assert_close(update(method, J), torch.tensor([first, other, other]).double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("k", [2, 3, 7])
def test_impartial_projections_are_equal_for_every_number_of_tasks(k: int) -> None:
    jacobian = drawn(k, 12)
    onto = jacobian / jacobian.norm(dim=1, keepdim=True) @ update(IMTL_G(), jacobian)
    torch.testing.assert_close(onto, onto[:1].expand(k))


def test_config_has_equal_cosines_or_those_that_are_preferred() -> None:
    jacobian = drawn(3, 9)
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    equal = units @ update(ConFIG(), jacobian)
    torch.testing.assert_close(equal, equal[:1].expand(3))
    chosen = units @ update(ConFIG({"a": 1.0, "b": 2.0, "c": 4.0}), jacobian)
    torch.testing.assert_close(chosen / chosen[0], torch.tensor([1.0, 2.0, 4.0]).double())


def test_aligned_rows_are_orthogonal_and_of_the_shortest_length() -> None:
    jacobian = drawn(4, 9)
    tasks = tuple("abcd")
    columns = []
    for task in tasks:  # a preference for (almost) one task gives that row of B J
        preference = {name: 1.0 if name == task else 1e-12 for name in tasks}
        columns.append(update(AlignedMTL(preference=preference), jacobian))
    aligned = torch.stack(columns)
    shortest = torch.linalg.svdvals(jacobian)[-1] ** 2
    torch.testing.assert_close(aligned @ aligned.T, shortest * torch.eye(4).double(), rtol=0, atol=1e-9)


def surgery(jacobian: Tensor, orders: Tensor) -> Tensor:
    """Algorithm 1 of the paper, in vectors."""
    total = torch.zeros_like(jacobian[0])
    for i, gradient in enumerate(jacobian):
        own = gradient.clone()
        for j in orders[:, i].tolist():
            if own @ jacobian[j] < 0:
                own -= own @ jacobian[j] / (jacobian[j] @ jacobian[j]) * jacobian[j]
        total += own
    return total


@pytest.mark.parametrize("k", [3, 6])
def test_surgery_in_coefficients_is_surgery_on_vectors(k: int) -> None:
    jacobian = drawn(k, 4)
    orders = random_orders(k, Memory(seed=5).generator)
    torch.testing.assert_close(update(PCGrad(), jacobian, memory=Memory(seed=5)), surgery(jacobian, orders))


def test_every_task_has_an_order_of_its_own_of_all_the_others() -> None:
    orders = random_orders(5, torch.Generator().manual_seed(0))
    assert [sorted(column) for column in orders.T.tolist()] == [[j for j in range(5) if j != i] for i in range(5)]
    ranks = [
        [others.index(4) for others in random_orders(5, torch.Generator().manual_seed(s)).T.tolist()[:4]]
        for s in range(60)
    ]
    assert any(len(set(row)) > 1 for row in ranks), "one order is shared by all"


def test_cagrad_without_a_radius_is_the_mean_and_one_task_gets_one_plus_c() -> None:
    torch.testing.assert_close(update(CAGrad(c=0), J), J.mean(0))
    torch.testing.assert_close(update(CAGrad(c=0.4), J[:1]), 1.4 * J[0])
    torch.testing.assert_close(update(CAGrad(c=0.4, variant="1+c"), J[:1]), J[0])


@pytest.mark.parametrize("max_norm", [0.5, 1.0, 2.0, None])
def test_a_bargain_is_as_long_as_the_root_of_the_number_of_tasks_until_it_is_clipped(max_norm: float | None) -> None:
    jacobian = 1e-5 * drawn(3, 8)
    expected = min(3**0.5, max_norm or 9.0)
    assert float(update(NashMTL(max_norm), jacobian).norm()) == pytest.approx(expected, rel=1e-12)
    alone = update(NashMTL(), J[:1])
    torch.testing.assert_close(alone, J[0] / J[0].norm())


def test_fairness_runs_from_the_sum_through_the_bargain_to_the_shortest_vector() -> None:
    jacobian = drawn(3, 8)
    unit = torch.nn.functional.cosine_similarity
    assert float(unit(update(FairGrad(1e-3), jacobian), jacobian.sum(0), dim=0)) > 1 - 1e-4
    torch.testing.assert_close(update(FairGrad(1.0), jacobian), update(NashMTL(None), jacobian))
    assert float(unit(update(FairGrad(100.0), jacobian), update(MGDA(), jacobian), dim=0)) > 1 - 1e-3


def test_a_preference_asks_for_a_fall_in_proportion() -> None:
    jacobian, p = drawn(3, 500), torch.tensor([1.0, 2.0, 3.0]).double()
    preference = {"a": 1.0, "b": 2.0, "c": 3.0}
    falls = jacobian @ update(MGDA(preference=preference), jacobian)
    torch.testing.assert_close(falls / falls[0], p)
    weights = NashMTL(None, preference).weights(jacobian @ jacobian.T, MethodContext(("a", "b", "c"), p), Memory())
    torch.testing.assert_close(weights * (jacobian @ jacobian.T @ weights), p / 2)
    agreeing = jacobian.abs()
    for method in (UPGrad(preference), DualProj(preference), CAGrad(0.0, preference=preference)):
        torch.testing.assert_close(update(method, agreeing), p @ agreeing / 6)


@pytest.mark.parametrize(
    ("variant", "size"),
    [("l2", lambda n, loss: n), ("loss", lambda n, loss: loss), ("loss+", lambda n, loss: n * loss)],
)
def test_mgda_seeks_weights_for_normalised_gradients_and_applies_them_to_raw_ones(variant: str, size: object) -> None:
    jacobian, losses = drawn(3, 12), torch.tensor([0.5, 2.0, 9.0]).double()
    normalised = jacobian / size(jacobian.norm(dim=1), losses)[:, None]  # type: ignore[operator]
    weights = MGDA()(normalised @ normalised.T)
    torch.testing.assert_close(update(MGDA(variant), jacobian, losses), jacobian.T @ weights)  # type: ignore[arg-type]


def test_gradient_norms_are_evened_out_or_brought_to_that_of_one_task() -> None:
    jacobian = drawn(3, 6) * torch.tensor([[1.0], [1e-6], [1e6]]).double()
    n = jacobian.norm(dim=1)
    torch.testing.assert_close(update(GradientNormScaling(), jacobian), (jacobian / n[:, None]).sum(0) / (1 / n).sum())
    torch.testing.assert_close(update(GradientNormScaling("b"), jacobian), n[1] * (jacobian / n[:, None]).sum(0))


@pytest.mark.parametrize(("cosine", "plain", "weighted"), [(0.6, 1.0, 0.6), (-0.6, 0.0, 0.0), (0.0, 0.0, 0.0)])
def test_an_auxiliary_task_counts_while_its_cosine_is_positive(cosine: float, plain: float, weighted: float) -> None:
    jacobian = torch.tensor([[2.0, 0.0], [3 * cosine, 3 * (1 - cosine**2) ** 0.5]], dtype=torch.float64)
    torch.testing.assert_close(update(GCS("a"), jacobian), jacobian[0] + plain * jacobian[1])
    torch.testing.assert_close(update(GCS("a", "weighted"), jacobian), jacobian[0] + weighted * jacobian[1])


def test_priority_leaves_the_primary_alone_or_gives_the_others_their_least_progress() -> None:
    agreeing = torch.tensor([[1.0, 0.2], [3.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(update(PCD(), agreeing), agreeing[0])
    d = update(PCD(tau=0.1), J)
    units = J / J.norm(dim=1, keepdim=True)
    before = d / d.norm() / float(units[0] @ (d / d.norm()))  # up to the length, g_p plus a multiple of the other
    assert float(d.norm()) == pytest.approx(float(J[0].norm()))
    assert float(units[1] @ d) > 0 > float(units[1] @ units[0])
    assert float(before @ units[0]) == pytest.approx(1.0)
    opposite = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(update(PCD(), opposite), opposite[0])  # nothing meets both: the constraints are dropped


def test_random_weights_are_a_mean_drawn_from_the_memory() -> None:
    before = torch.get_rng_state()
    first, again = Memory(seed=1), Memory(seed=1)
    drawn_twice = [
        RandomWeights().weights(torch.eye(3).double(), MethodContext(("a", "b", "c"), torch.ones(3)), m)
        for m in (first, again)
    ]
    assert torch.equal(*drawn_twice)
    assert float(drawn_twice[0].sum()) == pytest.approx(1.0)
    assert torch.equal(before, torch.get_rng_state())


ZERO = torch.tensor([[0.0, 0.0, 0.0], [-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("method", [IMTL_G(), NashMTL(), FairGrad(), ConFIG(), GradientNormScaling()], ids=str)
def test_a_gradient_of_zero_is_left_out_of_what_cannot_divide_by_it(method: GramianMethod) -> None:
    torch.testing.assert_close(update(method, ZERO), update(method, J))
    assert bool(torch.isfinite(update(method, 0 * J)).all())


@pytest.mark.parametrize("method", [MGDA(), MGDA("l2")], ids=str)
def test_a_gradient_of_zero_is_a_stationary_point_of_the_shortest_vector(method: GramianMethod) -> None:
    assert not update(method, ZERO).any()


@pytest.mark.parametrize("method", [NashMTL(), FairGrad(), IMTL_G(), ConFIG(), UPGrad(), DualProj(), MGDA()], ids=str)
def test_opposite_gradients_leave_nothing_to_do(method: GramianMethod) -> None:
    assert float(update(method, torch.stack([J[0], -3 * J[0]])).norm()) <= 1e-9


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CAGrad(c=-1), r"CAGrad: c: -1 is less than 0"),
        (lambda: CAGrad(variant="1+c2"), r"CAGrad: variant: '1\+c2' is none of 'paper', '1\+c', '1\+c\^2'"),
        (lambda: FairGrad(0), r"FairGrad: alpha: 0 is not above 0"),
        (
            lambda: MGDA(preference={"a": 1.0, "b": 0.0}),
            r"MGDA: preference: task 'b' has 0, and a preference is above 0",
        ),
        (
            lambda: update(UPGrad({"a": 1.0}), J),
            r"the preference of UPGrad: unknown task 'b'.*give every task an entry",
        ),
        (
            lambda: update(MGDA("loss"), J, torch.tensor([1.0, 0.0])),
            r"MGDA divides by a loss, and task 'b' has the loss 0",
        ),
        (lambda: update(PCD(primary="bb"), J), r"PCD: its primary is absent: unknown task 'bb'; did you mean 'b'"),
        (
            lambda: update(GradientNormScaling("c"), J),
            r"GradientNormScaling: its reference is absent: unknown task 'c'",
        ),
    ],
)
def test_bad_input_is_named(build: object, message: str) -> None:
    with pytest.raises(BalanceError, match=message):
        build()  # type: ignore[operator]
