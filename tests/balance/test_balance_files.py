"""The `[balance]` table: every method in it, what is said about each mistake, and the file around it."""

import contextlib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, final

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from groupwise import Plan
from groupwise._formats import parse, write_toml
from groupwise.balance import Balancer, plan_table
from groupwise.balance.memory import Memory
from groupwise.balance.method import LossMethod, Method, MethodContext
from groupwise.balance.methods import (
    DWA,
    FAMO,
    METHODS,
    MGDA,
    RLW,
    STCH,
    AutoLambda,
    CAGrad,
    Equal,
    GradDrop,
    LogSum,
    MetaBalance,
    MoCo,
    NashMTL,
    Normalized,
    Periodic,
    Smoothed,
    Static,
    Times,
    Uncertainty,
)
from groupwise.balance.plan_table import Stated, decode, encode, read_balance
from groupwise.errors import BalanceError, GroupwiseError, PlanError
from groupwise.schedules import constant, cosine, function, linear

STATED: list[Method] = [
    Static({"seg": 1, "depth": linear(0.0, end=0.5, over="10%")}),
    Static({"a task: with.dots": constant(1.0).then(cosine(1.0), at="50%")}),
    Equal(reduction="mean"), Uncertainty(lr=0.1, variant="softplus"), DWA(window=25, temperature=1.5), RLW("dirichlet"),
    STCH(mu=0.1, preference={"seg": 0.3, "depth": 0.7}, ideal={"seg": -1, "depth": 0}), FAMO(gamma=0, floor={"a": -1}),
    GradDrop(leak=0.3), GradDrop(leak={"seg": 1.0, "depth": 0.0}), MetaBalance(primary="seg", relax=1),
    MoCo(variant="normalized"), AutoLambda(primary=("seg", "depth"), lr=1e-3), CAGrad(c=0.4, preference={"seg": 1.0}),
    Smoothed(NashMTL(), rate=0.5), Periodic(CAGrad(variant="1+c"), n=3), Times(LogSum(), Normalized(MGDA())),
]  # fmt: skip

MISTAKES: dict[str, tuple[object, str]] = {
    "a number": (3, 'it is a table, such as method = "CAGrad", not 3'),
    "nothing": ({}, 'no method is named: write method = "CAGrad", or weights by task'),
    "a misspelt method": ({"method": "FANO"}, "unknown method 'FANO'; did you mean 'FAMO'?"),
    "a method that is a number": ({"method": 1}, "1 is no method"),
    "a misspelt argument": (
        {"method": "FAMO", "gama": 1},
        r"FAMO: unknown argument 'gama'; did you mean 'gamma'\? \(there is: lr, gamma, floor, task_only\)",
    ),
    "an argument of another": ({"method": "FAMO", "weights": {}}, "FAMO: unknown argument 'weights'"),
    "an argument that is text": ({"method": "FAMO", "gamma": "x"}, "FAMO: gamma: 'x' is not a number"),
    "a negative rate": ({"method": "FAMO", "lr": -1}, "FAMO: lr: -1 is not above 0"),
    "half a window": ({"method": "DWA", "window": 2.5}, "DWA: window: 2.5 is not a whole number"),
    "a variant of none": (
        {"method": "RLW", "variant": "x"},
        "RLW: variant: 'x' is none of 'normal', 'dirichlet'",
    ),
    "a task as a list": ({"method": "MetaBalance", "primary": ["a"]}, r"MetaBalance: primary: \['a'\] is not the name"),
    "tasks as text": ({"method": "AutoLambda", "primary": "a"}, "AutoLambda: primary: 'a' is not a list of tasks"),
    "no weights": ({"method": "Static"}, "Static: weights is not given"),
    "one weight": ({"weights": 3}, "Static: weights: a table by task is written .*, not 3"),
    "a weight as text": ({"weights": {"a": "x"}}, "Static: weights: task 'a': 'x' is not a number"),
    "a misspelt schedule": (
        {"weights": {"a": {"cosin": 1}}},
        "Static: weights: unknown schedule 'cosin'; did you mean",
    ),
    "a floor over time": (
        {"method": "FAMO", "floor": {"a": {"linear": 1}}},
        "floor: task 'a': a number, not a schedule",
    ),
    "heads": ({"method": "FAMO", "task_only": "all"}, 'task_only is "weighted" or "unweighted", not \'all\''),
    "a wrapper of nothing": ({"method": "Halved"}, "Halved: of is not given"),
    "a wrapper of a number": ({"method": "Halved", "of": 3}, "Halved: of: a method is its name, or a table with its"),
    "a mistake inside": (
        {"method": "Halved", "of": {"method": "FAMO", "task_only": "unweighted"}},
        "of: FAMO: unknown argument 'task_only'",
    ),
    "text for a bool": ({"method": "Halved", "of": "FAMO", "loud": "x"}, "Halved: loud: 'x' is neither true nor false"),
    "text for a number": ({"method": "Halved", "of": "FAMO", "by": "x"}, "Halved: by: 'x' is not a number"),
    "Python only": (
        {"method": "Halved", "of": "FAMO", "draw": 1},
        "draw: it is for Python alone, and a file gives 1",
    ),
}


@final
@dataclass(frozen=True)
class Halved(LossMethod):
    """A wrapper whose fields are annotated plainly, as a user would write them."""

    method: LossMethod
    by: float = 2.0
    loud: bool = False
    draw: torch.Generator | None = None

    def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
        return self.method.weights(losses, context, memory.part("inner")) / self.by


@pytest.fixture(autouse=True)
def wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_table, "METHODS", {**METHODS, "Halved": Halved})


def through_toml(table: dict[str, Any]) -> object:
    return parse(write_toml({"balance": table}), "toml")["balance"]


@pytest.mark.parametrize("method", STATED, ids=repr)
def test_a_method_is_read_back_as_it_was_written(method: Method) -> None:
    for heads in (None, "unweighted", "weighted"):
        assert decode(through_toml(encode(method, heads))) == Stated(method, heads)  # type: ignore[arg-type]


def needs_an_argument(method: type[Method]) -> bool:
    return any(field.default is MISSING and field.default_factory is MISSING for field in fields(method))


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not needs_an_argument(method)])
def test_a_method_that_needs_no_argument_is_its_name_alone(name: str) -> None:
    method = METHODS[name]()
    assert encode(method) == {"method": name} == {"method": method.name}
    assert decode({"method": name}) == Stated(method)


def test_a_wrapper_holds_its_method_under_of() -> None:
    assert encode(Halved(Halved(FAMO(lr=0.1)), by=4)) == {
        "method": "Halved",
        "of": {"method": "Halved", "of": {"method": "FAMO", "lr": 0.1}},
        "by": 4,
    }
    assert decode({"method": "Halved", "of": "FAMO", "by": "4"}).method == Halved(FAMO(), by=4.0)
    assert decode(through_toml(encode(Halved(Halved(FAMO(lr=0.1)), by=4)))).method == Halved(Halved(FAMO(lr=0.1)), by=4)


def test_weights_without_a_name_are_static_and_text_spells_numbers() -> None:
    assert decode({"weights": {"seg": "1e-3", "depth": {"linear": "1e-1"}}}) == Stated(
        Static({"seg": 1e-3, "depth": linear(0.1)})
    )
    assert decode({"method": "FAMO", "gamma": "1e-2", "floor": {"seg": "-1"}}).method == FAMO(
        gamma=0.01, floor={"seg": -1}
    )


@pytest.mark.parametrize(("table", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_place_and_the_way_out(table: object, message: str) -> None:
    with pytest.raises(GroupwiseError, match=message):
        decode(table)


def test_what_only_python_can_hold_is_not_written() -> None:
    @final
    @dataclass(frozen=True)
    class Mine(LossMethod):
        def weights(self, losses: Tensor, context: MethodContext, memory: Memory) -> Tensor:
            return losses

    with pytest.raises(
        BalanceError, match="Mine is Python only: a file names one of the methods that come with groupwi"
    ):
        encode(Mine())
    with pytest.raises(BalanceError, match="Halved: Mine is Python only"):
        encode(Halved(Mine()))
    with pytest.raises(
        BalanceError, match=r"Halved: .*Generator object.* is Python only and cannot be written to a file"
    ):
        encode(Halved(Equal(), draw=torch.Generator()))
    with pytest.raises(GroupwiseError, match=r"Static: function.* is Python only"):
        encode(Static({"seg": function(lambda *_: 1.0)}))


FILES = {
    "plan.toml": "[[rule]]\nmatch = 3\n\n[balance]\nweights = { seg = 1.0, depth = { linear = 0.0 } }\n"
    'task_only = "unweighted"\n',
    "plan.yaml": "balance: {weights: {seg: 1.0, depth: {linear: 0.0}}, task_only: unweighted}\n",
    "plan.json": '{"balance": {"weights": {"seg": 1.0, "depth": {"linear": 0.0}}, "task_only": "unweighted"}}',
}


@pytest.mark.parametrize("name", FILES)
def test_the_table_is_read_from_a_plan_file_whose_other_tables_are_not_looked_at(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FILES[name])
    expected = Stated(Static({"seg": 1.0, "depth": linear(0.0)}), "unweighted")
    assert read_balance(path) == read_balance(str(path)) == expected


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("x = 1", BalanceError, r'plan.toml: there is no \[balance\] table: add one, such as method = "CAGrad"'),
        ("[balanc]", BalanceError, r"there is no \[balance\] table; did you mean \[balance\] by 'balanc'\?"),
        ("balance = 1", BalanceError, "plan.toml: balance: it is a table, such as method = .*, not 1"),
        ('[balance]\nmethod = "FANO"', BalanceError, "plan.toml: balance: unknown method 'FANO'; did you mean 'FAMO'"),
        ("[balance", PlanError, "plan.toml: not valid TOML"),
        ("", PlanError, "plan.toml: the plan is empty"),
    ],
)
def test_errors_name_the_file(tmp_path: Path, text: str, error: type[GroupwiseError], message: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(error, match=message):
        read_balance(path)


def test_what_is_no_file_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"nowhere.toml: cannot read the file: No such file or directory"):
        read_balance(tmp_path / "nowhere.toml")
    with pytest.raises(BalanceError, match="a balancer is loaded from the path of a plan file, not from Equal"):
        read_balance(Equal())  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"unknown suffix of a plan file '.txt'"):
        read_balance("plan.txt")


def test_what_no_file_can_hold_is_given_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('[balance]\nmethod = "CAGrad"\n')
    weight = torch.ones(2, requires_grad=True)
    losses = {"a": weight.sum() * torch.nan, "b": weight.sum()}
    with pytest.raises(BalanceError, match="task 'a': its loss is nan"):
        Balancer.load(path, nonfinite="raise").backward(losses)
    assert (
        Balancer.load(path, route="gramian", distributed="local")
        .backward({"b": weight.sum()})
        .route.startswith("gramian")
    )


def test_the_table_of_a_plan_is_the_same_table() -> None:
    text = '[[rule]]\nmatch = "*"\nlr = 1\n[balance]\nmethod = "FAMO"\ngamma = 0.1\n'
    assert decode(Plan.loads(text).balance) == Stated(FAMO(gamma=0.1))


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["seg", "1e-3", "FAMO", "Static", "unweighted"])
)
keys = st.sampled_from(
    [
        "method",
        "weights",
        "heads",
        "of",
        "floor",
        "gamma",
        "lr",
        "window",
        "variant",
        "primary",
        "leak",
        "by",
        "linear",
        "seg",
    ]
)
data = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
ARGUMENTS = ["weights", "task_only", "of", "floor", "gamma", "lr", "window", "variant", "primary", "leak", "by"]
tables = st.fixed_dictionaries(
    {"method": st.sampled_from([*METHODS, "Halved"]) | data}, optional=dict.fromkeys(ARGUMENTS, data)
)


@settings(max_examples=400)
@given(tables | data)
def test_plain_data_of_any_kind_is_decoded_or_refused_in_our_own_words(table: object) -> None:
    with contextlib.suppress(GroupwiseError):
        stated = decode(table)
        assert decode(encode(stated.method, stated.task_only)) == stated
