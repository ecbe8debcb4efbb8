"""The result says what was done, and the numbers are those of the explicit Jacobian."""

import pickle

import pytest
import torch

from groupwise.balance import MGDA, Balancer, CAGrad, Equal, FromGramian, FromJacobian, Method, UPGrad
from groupwise.balance.result import Cosines, conflicting_tasks
from groupwise.errors import GroupwiseWarning
from tests.balance.engine.models import KINDS, built
from tests.balance.engine.reference import crooked, reference


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cost", ["sequential", "gramian"])
def test_norms_cosines_and_who_was_hurt(kind: str, cost: str) -> None:
    if cost == "gramian" and ("Sparse" in kind or kind == "Checkpointed"):
        pytest.skip("its backward cannot be batched")
    expected = reference(kind)
    gramian, weights = expected.gramian(), crooked(expected.gramian())
    result = Balancer(FromGramian(crooked), route=cost).backward(built(kind).losses())
    norms = gramian.diagonal().sqrt()
    assert result.norms == pytest.approx(dict(zip(expected.tasks, norms.tolist(), strict=True)), rel=1e-10)
    for (a, b), cosine in result.cosines.items():
        i, j = expected.tasks.index(a), expected.tasks.index(b)
        if norms[i] > 0 and norms[j] > 0:
            assert cosine == pytest.approx(float(gramian[i, j] / norms[i] / norms[j]), abs=1e-10)
            assert ((a, b) in result.conflicts) == (cosine < 0)
    assert set(result.conflicting) == {
        t for t, change in zip(expected.tasks, (gramian @ weights).tolist(), strict=True) if change < -1e-12
    }
    assert result.loss == pytest.approx(float(weights @ expected.losses), rel=1e-10)
    assert result.losses == pytest.approx(dict(zip(expected.tasks, expected.losses.tolist(), strict=True)))


def test_shares_are_the_norms_by_task_and_parameter_until_the_next_backward() -> None:
    expected, model, balancer = reference("Plain"), built("Plain"), Balancer(CAGrad())
    result = balancer.backward(model.losses())
    names = {parameter: name for name, parameter in model.named_parameters()}
    shares = result.shares
    assert shares is not None
    for i, task in enumerate(result.tasks):
        for column, parameter in enumerate(result.shared):
            norm = float(expected.gradients[task][names[parameter]].norm())
            assert float(shares[i, column]) == pytest.approx(norm, rel=1e-6)
    balancer.backward(model.losses())
    assert result.shares is None


def test_a_jacobian_method_has_no_weights_and_still_tells_whom_it_hurt() -> None:
    expected = reference("Plain")
    against = FromJacobian(lambda jacobian: -jacobian[1])
    result = Balancer(against).backward(built("Plain").losses())
    products = (expected.gramian()[1] * -1).tolist()
    assert result.weights == {}
    assert set(result.conflicting) == {
        task for task, change in zip(expected.tasks, products, strict=True) if change < 0
    }


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_result_with_a_broken_task_can_be_printed(value: float) -> None:
    losses = built("Plain").losses()
    with pytest.warns(GroupwiseWarning, match="its loss is"):
        result = Balancer(CAGrad()).backward({**losses, "b": losses["b"] * value})
    assert f"{value}" in str(result)
    assert f"skipped: its loss is {value}" in str(result)


def test_an_update_on_the_edge_of_the_cone_hurts_nobody() -> None:
    for kind in ("Plain", "PartlyShared", "Convolutional"):
        assert Balancer(UPGrad()).backward(built(kind).losses()).conflicting == ()


def test_it_prints_as_a_table() -> None:
    text = str(Balancer(MGDA()).backward(built("Plain").losses()))
    first, *rows, last = text.splitlines()
    assert first.split() == ["task", "loss", "weight", "norm"]
    assert [row.split()[0] for row in rows[:3]] == ["a", "b", "c"]
    assert last.startswith("sequential: 3 backwards")
    assert max(map(len, text.splitlines())) <= 100


def test_a_loss_method_looks_at_no_gradient() -> None:
    result = Balancer(Equal()).backward(built("Plain").losses())
    assert result.norms == {} == result.cosines
    assert result.shares is None
    assert result.weights == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert result.loss == pytest.approx(sum(float(loss.detach()) for loss in built("Plain").losses().values()))


def test_tasks_that_share_nothing_see_their_own_gradients() -> None:
    model = torch.nn.ModuleList([torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)])
    x = torch.ones(2, 3)
    losses = {"a": model[0](x).mean(), "b": model[1](x).mean()}
    Balancer(FromGramian(lambda gramian: torch.full((2,), 7.0))).backward(losses)
    assert torch.equal(model[0].weight.grad, torch.ones(1, 3))


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_a_task_is_hurt_where_its_loss_rises_by_more_than_rounding(scale: float) -> None:
    """Solvers meet d.g = 0 to rounding; the bound is relative to both lengths."""
    norms = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64) * scale
    products = torch.tensor([-1e-12, -1e-6, 1e-12, 1e-6], dtype=torch.float64) * norms * scale
    assert conflicting_tasks(("a", "b", "c", "d"), products, norms, scale) == ("b",)
    assert conflicting_tasks(("a",), products[:1], norms[:1], 1e-6 * scale) == (
        "a",
    )  # along a shorter update it is a share


def test_every_pair_has_one_cosine() -> None:
    gradients = torch.tensor([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.5]], dtype=torch.float64)
    cosines = Cosines(("a", "b", "c"), gradients @ gradients.T)
    assert [*cosines] == [("a", "b"), ("a", "c"), ("b", "c")]
    expected = torch.cosine_similarity(gradients[[0, 0, 1]], gradients[[1, 2, 2]], dim=1)
    assert [*cosines.values()] == pytest.approx(expected.tolist(), abs=1e-15)


@pytest.mark.parametrize("method", [CAGrad(), Equal()], ids=str)
def test_a_result_is_pickled_with_its_numbers_and_without_tensors(method: Method) -> None:
    model = built("Plain")
    result = Balancer(method).backward(model.losses())
    again = pickle.loads(pickle.dumps(result))
    assert str(again) == str(result)
    assert (again.weights, again.norms, again.cosines) == (result.weights, result.norms, result.cosines)
    assert (again.shared, again.shares) == ((), None)


def test_cosines_are_a_mapping_that_is_equal_to_its_dict_and_pickled_as_one() -> None:
    rows = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    names = ("a", "b", "c", "d")
    cosines = Cosines(names, rows @ rows.T)
    expected = {
        (names[i], names[j]): float(torch.nn.functional.cosine_similarity(rows[i], rows[j], dim=0))
        for i in range(4)
        for j in range(i + 1, 4)
    }
    assert dict(cosines) == pytest.approx(expected)
    assert (len(cosines), repr(cosines)) == (6, repr(dict(cosines)))
    again = pickle.loads(pickle.dumps(cosines))
    assert type(again) is dict
    assert again == cosines
