"""What holds of every program: laws over random ones, each beside an independent reckoning."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD

from groupwise.audit import SEVERITIES, audit
from groupwise.audit.graph import reach_of
from groupwise.audit.naming import gathered

names = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(".".join)
trees = st.sets(names.map(lambda name: f"{name}.w"), min_size=1, max_size=8).map(sorted)


class Bag(nn.Module):
    """Parameters of one shape, under two modules."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({part: nn.ParameterDict() for part in ("left", "right")})
        for i in range(count):
            self.parts["left" if i % 2 else "right"][f"p{i}"] = nn.Parameter(torch.zeros(i + 1))


@given(st.lists(st.tuples(st.sets(st.integers(0, 2)), st.booleans()), min_size=1, max_size=6))
@settings(max_examples=60)
def test_ownership_is_counted_right_for_every_assignment(assignment: list[tuple[set[int], bool]]) -> None:
    model = Bag(len(assignment))
    by_number = {int(name.rpartition("p")[2]): (name, p) for name, p in model.named_parameters()}
    spare = nn.Parameter(torch.zeros(9, 9))  # so that no optimizer is empty
    held: list[list[nn.Parameter]] = [[spare], [spare], [spare]]
    for i, (owners, trains) in enumerate(assignment):
        by_number[i][1].requires_grad_(trains)
        for owner in owners:
            held[owner].append(by_number[i][1])
    found = audit(model, [SGD(params, lr=0.1) for params in held])
    counts = {by_number[i][0]: (len(owners), trains) for i, (owners, trains) in enumerate(assignment)}
    expected = {
        "unowned": {name for name, (count, trains) in counts.items() if count == 0 and trains},
        "owned-twice": {name for name, (count, _) in counts.items() if count > 1},
        "frozen-owned": {name for name, (count, trains) in counts.items() if count and not trains},
    }
    for check, affected in expected.items():
        named = [name for finding in found if finding.check == check for name in finding.parameters]
        assert sorted(named) == sorted(affected)


@given(st.data())
def test_findings_come_worst_first_and_depend_on_no_order_of_optimizers(data: st.DataObject) -> None:
    model = Bag(4)
    params = list(model.parameters())
    optimizers = {str(i): SGD([params[i], params[0]], lr=0.0, weight_decay=0.1) for i in range(1, 4)}
    shuffled = dict(data.draw(st.permutations(list(optimizers.items()))))
    there, here = audit(model, optimizers), audit(model, shuffled)
    assert {(f.check, f.severity, f.parameters) for f in there} == {(f.check, f.severity, f.parameters) for f in here}
    ranks = [SEVERITIES.index(finding.severity) for finding in here]
    assert ranks == sorted(ranks)


expressions = st.recursive(
    st.just("leaf"),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["+", "-"]), inner, inner),
        st.tuples(st.sampled_from(["*", "/", "tensor*"]), inner, st.sampled_from([0.25, 3.0, -2.0])),
        st.tuples(st.just("neg"), inner),
    ),
    max_leaves=6,
)


def built(expression: object, leaves: list[torch.Tensor]) -> torch.Tensor:
    """The total that an expression stands for; each leaf of it is a new term, the square of a parameter."""
    if expression == "leaf":
        leaves.append(torch.tensor(1.5, dtype=torch.float64, requires_grad=True))
        return leaves[-1].square()
    operator, inner, *rest = expression
    if operator in "+-":
        one, other = built(inner, leaves), built(rest[0], leaves)
        return one + other if operator == "+" else one - other
    if operator == "neg":
        return -built(inner, leaves)
    factor = torch.tensor(rest[0], dtype=torch.float64) if operator == "tensor*" else rest[0]
    return built(inner, leaves) / factor if operator == "/" else factor * built(inner, leaves)


@given(expressions)
def test_the_weights_of_a_total_are_what_autograd_makes_of_them(expression: object) -> None:
    leaves: list[torch.Tensor] = []
    total = built(expression, leaves)
    reach = reach_of({"total": total})
    weights = {leaf: term.weight for term in reach.terms for leaf in term.leaves}
    for leaf, gradient in zip(leaves, torch.autograd.grad(total, leaves), strict=True):
        torch.testing.assert_close(weights[id(leaf)], abs(float(gradient)) / 3.0)  # d/dx x² at 1.5


@given(st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=4))
def test_a_loss_reaches_what_autograd_gives_a_gradient(uses: list[set[int]]) -> None:
    layers = [nn.Linear(3, 3) for _ in range(5)]
    parameters = list(itertools.chain.from_iterable(layer.parameters() for layer in layers))
    losses = {}
    for task, used in enumerate(uses):
        hidden = torch.ones(2, 3)
        for index in sorted(used):
            hidden = torch.relu(layers[index](hidden))
        losses[str(task)] = hidden.sum()
    reach = reach_of(losses)
    for task, loss in losses.items():
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
        assert reach.tasks[task] == {id(p) for p, g in zip(parameters, gradients, strict=True) if g is not None}


@given(trees, st.data())
def test_names_are_gathered_without_loss_and_modules_named_only_where_whole(
    tree: list[str], data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(tree), unique=True, min_size=1))
    parts = gathered(chosen, tree)
    assert sorted(name for _, held in parts for name in held) == sorted(chosen)
    for prefix, held in parts:
        under = [name for name in tree if prefix in ("", name) or name.startswith(f"{prefix}.")]
        assert sorted(under) == sorted(held)
