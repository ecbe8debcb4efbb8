"""Every route writes what its weights say, on every kind of model, to rounding."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from groupwise.balance import DBMTL, Balancer, CAGrad, FromGramian, FromJacobian, FromLosses, Times
from tests.balance.engine.models import KINDS, built
from tests.balance.engine.reference import assert_same, crooked, gradients, reference

kinds = pytest.mark.parametrize("kind", KINDS)
batchable = pytest.mark.parametrize("kind", [k for k in KINDS if "Sparse" not in k and k != "Checkpointed"])
heads = pytest.mark.parametrize("heads", ["unweighted", "weighted"])


def loss_weights(losses: Tensor) -> Tensor:
    return torch.cos(3 * losses) + 0.1


@kinds
@heads
def test_sequential_is_the_explicit_jacobian(kind: str, heads: str) -> None:
    expected, model = reference(kind), built(kind)
    result = Balancer(FromGramian(crooked), task_only=heads, route="sequential").backward(model.losses())
    weights = crooked(expected.gramian())
    assert_same(model, expected.update(weights, weights if heads == "weighted" else None))
    assert result.weights == pytest.approx(dict(zip(expected.tasks, weights.tolist(), strict=True)), rel=1e-12)


@batchable
@heads
def test_the_gramian_route_is_the_sequential_one_without_rows(kind: str, heads: str) -> None:
    expected, model = reference(kind), built(kind)
    result = Balancer(FromGramian(crooked), task_only=heads, route="gramian").backward(model.losses())
    weights = crooked(expected.gramian())
    assert_same(model, expected.update(weights, weights if heads == "weighted" else None))
    assert result.shares is None


@kinds
@heads
def test_known_weights_need_one_backward(kind: str, heads: str) -> None:
    expected, model = reference(kind), built(kind)
    Balancer(FromLosses(loss_weights), task_only=heads).backward(model.losses())
    weights = loss_weights(expected.losses)
    assert_same(model, expected.update(weights, weights if heads == "weighted" else None))


@kinds
def test_a_jacobian_method_gets_the_rows_and_its_update_is_written(kind: str) -> None:
    if "Sparse" in kind:
        pytest.skip("refused, see test_bad_input")
    expected, model = reference(kind), built(kind)

    def update(jacobian: Tensor) -> Tensor:
        return crooked(jacobian @ jacobian.T) @ jacobian

    Balancer(FromJacobian(update)).backward(model.losses())
    assert_same(model, expected.update(crooked(expected.gramian())))


@kinds
def test_batches_of_one_task_each_are_the_joint_batch(kind: str) -> None:
    expected, model = reference(kind), built(kind)
    balancer = Balancer(FromGramian(crooked))
    *first, last = expected.tasks
    for task in first:
        balancer.accumulate({task: model.losses()[task]})
    result = balancer.backward({last: model.losses()[last]})
    assert result.tasks == expected.tasks
    assert_same(model, expected.update(crooked(expected.gramian())))


@kinds
def test_one_task_alone_is_plain_backward(kind: str) -> None:
    for task in built(kind).losses():
        model = built(kind)
        Balancer(FromGramian(lambda gramian: torch.ones(1))).backward({task: model.losses()[task]})
        assert_same(model, dict(reference(kind, [task]).gradients[task]), tolerance=0)


@pytest.mark.parametrize("kind", ["Plain", "Checkpointed", "Frozen", "Convolutional", "Recurrent", "TwoFeatures"])
@heads
def test_features_weigh_by_the_gradients_there(kind: str, heads: str) -> None:
    expected, model = reference(kind), built(kind)
    losses = model.losses()
    given = model.features
    places = list(given.values()) if isinstance(given, dict) else [given]
    rows = []
    for loss in losses.values():
        grads = torch.autograd.grad(loss, places, retain_graph=True, allow_unused=True)
        pieces = zip(grads, places, strict=True)
        rows.append(torch.cat([(torch.zeros_like(z) if g is None else g).flatten() for g, z in pieces]))
    jacobian = torch.stack(rows)
    result = Balancer(FromGramian(crooked), task_only=heads).backward(losses, features=given)
    weights = crooked(jacobian @ jacobian.T)
    assert_same(model, expected.update(weights, weights if heads == "weighted" else None))
    assert "upper bound" in result.route


@pytest.mark.parametrize("kind", ["Plain", "Checkpointed", "Frozen", "Recurrent"])
def test_found_features_are_the_narrowest_tensor_that_all_heads_read(kind: str) -> None:
    given, found = built(kind), built(kind)
    losses = given.losses()
    by_hand = Balancer(FromGramian(crooked)).backward(losses, features=given.features)
    by_graph = Balancer(FromGramian(crooked), route="features").backward(found.losses())
    assert by_hand.norms == pytest.approx(by_graph.norms, rel=1e-12)
    assert "narrowest" in by_graph.route


@heads
def test_a_layer_sets_the_weights_of_the_whole_update(heads: str) -> None:
    expected, model = reference("Plain"), built("Plain")
    weights = crooked(expected.gramian(["trunk.2.weight", "trunk.2.bias"]))
    result = Balancer(FromGramian(crooked), task_only=heads, at=model.trunk[2]).backward(model.losses())
    assert_same(model, expected.update(weights, weights if heads == "weighted" else None))
    assert result.route.startswith("layer")


def test_a_layer_may_be_a_name_or_parameters() -> None:
    norms = []
    for at in ("trunk.2", ["trunk.2.weight", "trunk.2.bias"]):
        model = built("Plain")
        norms.append(Balancer(FromGramian(crooked), at=at, parameters=model).backward(model.losses()).norms)
    assert norms[0] == norms[1]


def test_features_serve_a_batch_with_one_task_which_gets_its_own_gradient() -> None:
    model, alone = built("Plain"), built("Plain")
    balancer = Balancer(FromGramian(lambda gramian: gramian.new_ones(len(gramian))))
    task, loss = next(iter(model.losses().items()))
    result = balancer.backward({task: loss}, features=model.features)
    alone.losses()[task].backward()
    assert result.tasks == (task,)
    assert_same(model, gradients(alone))


@pytest.mark.parametrize("cost", ["gramian", "features"])
def test_while_the_whole_trunk_is_frozen_heads_learn_on_every_route(cost: Literal["gramian", "features"]) -> None:
    ours, theirs = built("Plain"), built("Plain")
    for model in (ours, theirs):
        model.trunk.requires_grad_(False)
    Balancer(CAGrad(), route=cost).backward(ours.losses())
    sum(theirs.losses().values()).backward()
    assert_same(ours, gradients(theirs))


@pytest.mark.parametrize("kind", ["Plain", "PartlyShared", "TwoFeatures"])
def test_heads_see_the_half_that_scales_losses_on_every_route(kind: str) -> None:
    """Task-only tensors times a factor of their own, shared ones times the weight."""
    models = built(kind), built(kind)
    method = Times(FromLosses(lambda losses: 1 / losses), FromGramian(crooked))
    results = [
        Balancer(method, route=cost).backward(model.losses())
        for cost, model in zip(("sequential", "gramian"), models, strict=True)
    ]
    assert results[0].weights == pytest.approx(results[1].weights, rel=1e-10)
    assert_same(models[1], gradients(models[0]), tolerance=1e-10)


def test_what_a_jacobian_method_says_of_task_only_parameters_is_done() -> None:
    """DB-MTL: those of one task see the gradient of log L, on every route that has rows."""
    for split in (False, True):
        model = built("Plain")
        losses = model.losses()
        alone = {task: torch.autograd.grad(loss, [*model.parameters()], retain_graph=True, allow_unused=True)
                 for task, loss in losses.items()}  # fmt: skip
        balancer = Balancer(DBMTL())
        if split:
            balancer.accumulate({task: losses[task] / 2 for task in losses})
            losses = {task: loss / 2 for task, loss in model.losses().items()}
        balancer.backward(losses)
        for place, parameter in enumerate(model.parameters()):
            owners = [task for task, grads in alone.items() if grads[place] is not None]
            if len(owners) == 1:
                task = owners[0]
                loss = float(model.losses()[task].detach())
                torch.testing.assert_close(parameter.grad, alone[task][place] / loss)
