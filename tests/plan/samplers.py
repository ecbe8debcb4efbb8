"""Random plans for random models: each rule as groupwise takes it, beside the sentence that the oracle reads."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from hypothesis import strategies as st
from torch import nn

from groupwise import Plan, Rule, after, clip_norm, clip_value, exact, layer_decay, scale, unfreeze_down, until
from groupwise.plan import Algorithm
from groupwise.schedules import linear, steps
from groupwise.select import Selector, depth, kind, name, ndim, network, selector
from tests.plan.oracle import DEFAULTS, Sentence, Value
from tests.plan.trees import Model, Occurrence, models, places_of

ALGORITHMS = {
    "Adaptive": Algorithm("Adaptive", {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.01}),
    "Plain": Algorithm("Plain", {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}),
    "Sparse": Algorithm("Sparse", {"lr": 1e-3, "betas": (0.9, 0.95)}),
}
Chosen = tuple[Selector, Callable[[Occurrence], bool]]
SLOTS = {"lr": "lr", "weight_decay": "weight_decay", "momentum": "momentum", "beta1": "betas[0]", "beta2": "betas[1]"}
LINEAR = linear(0.5, end=0.25, over=steps(8))
HALVED = linear(1.0, end=0.5, over=steps(4))


@dataclass
class Case:
    """A model, its plan, and the plan's sentences."""

    model: Model
    plan: Plan
    sentences: list[Sentence]
    occurrences: list[Occurrence]

    @property
    def shown(self) -> str:
        return "\n".join(map(str, self.plan.rules))


def selectors(occurrences: list[Occurrence]) -> st.SearchStrategy[Chosen]:
    """Atoms that occur in a model (some do not), and their combinations."""
    names = [name for occurrence in occurrences for name in occurrence.names]
    words = sorted({word for full in names for word in full.split(".")})
    paths = sorted({full.rsplit(".", n)[0] for full in names for n in range(1, full.count(".") + 1)} or {"none"})
    globs = st.sampled_from([*(f"*{word}" for word in words), *(f"{word}.*" for word in words), *names])
    atoms = st.one_of(
        globs.map(_glob),
        st.sampled_from(paths).map(_path),
        st.integers(0, 4).map(lambda n: (ndim(n), lambda occurrence: occurrence.tensor.ndim == n)),
        st.sampled_from([nn.Linear, nn.LayerNorm, nn.Embedding, nn.Conv2d, nn.Module]).map(_kind),
        st.sampled_from(["gen", "other"]).map(lambda key: (network(key), lambda p: any(_in(n, key) for n in p.names))),
        st.integers(0, 3).map(lambda n: (depth(min=n), lambda occurrence: any(d >= n for d in occurrence.depths))),
    )
    return st.recursive(st.one_of(st.just(_glob("*")), atoms), _combined, max_leaves=3)


def _glob(glob: str) -> Chosen:
    accepts = fnmatchcase if set(glob) & set("*?[") else _in
    return name(glob), lambda occurrence: any(accepts(full, glob) for full in occurrence.names)


def _path(path: str) -> Chosen:
    return selector(path), lambda occurrence: any(_in(full, path) for full in occurrence.names)


def _in(full: str, path: str) -> bool:
    return full == path or full.startswith(f"{path}.")


def _kind(cls: type) -> Chosen:
    return kind(cls), lambda occurrence: cls.__name__ in occurrence.kinds and cls is not nn.Module


def _combined(inner: st.SearchStrategy[Chosen]) -> st.SearchStrategy[Chosen]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        inner.map(lambda one: (~one[0], lambda occurrence: not one[1](occurrence))),
        pairs.map(
            lambda two: (two[0][0] | two[1][0], lambda occurrence: two[0][1](occurrence) or two[1][1](occurrence))
        ),
        pairs.map(
            lambda two: (two[0][0] & two[1][0], lambda occurrence: two[0][1](occurrence) and two[1][1](occurrence))
        ),
        pairs.map(
            lambda two: (two[0][0] - two[1][0], lambda occurrence: two[0][1](occurrence) and not two[1][1](occurrence))
        ),
    )


numbers = st.sampled_from([0.0, 0.01, 0.3])
rates: st.SearchStrategy[Value] = st.one_of(
    st.tuples(st.sampled_from(["value", "exact"]), st.sampled_from([0.01, 0.3, LINEAR])),
    st.tuples(st.just("scale"), st.sampled_from([0.5, 1.0, HALVED])),
    st.tuples(st.just("decay"), st.just(0.5)),
)
decays: st.SearchStrategy[Value] = st.one_of(st.tuples(st.sampled_from(["value", "exact"]), numbers), rates)
fractions: st.SearchStrategy[Value] = st.tuples(
    st.sampled_from(["value", "exact", "scale"]), st.sampled_from([0.8, 0.9])
)
zeros: st.SearchStrategy[Value] = st.just(("value", 0.0))


def python_value(value: Value) -> Any:
    word, x = value
    makers: dict[str, Callable[[Any], Any]] = {"exact": exact, "scale": scale, "decay": layer_decay}
    return makers[word](x) if word in makers else x


@st.composite
def _rule(draw: st.DrawFn, occurrences: list[Occurrence], first: bool, tame: bool) -> tuple[Rule, Sentence]:
    base = first and (tame or draw(st.integers(0, 9)) > 0)
    chosen, where = _glob("*") if base else draw(selectors(occurrences))
    optimizer = draw(st.sampled_from(list(DEFAULTS) if base else [None, None, *DEFAULTS]))
    own: dict[str | None, st.SearchStrategy[Value]] = {"Plain": st.one_of(zeros, fractions), None: zeros}
    options = {
        "lr": rates,
        "weight_decay": decays if optimizer != "Sparse" else zeros,
        "momentum": own.get(optimizer, zeros),
    }
    if optimizer in ("Adaptive", "Sparse"):
        options |= {"beta1": fractions, "beta2": fractions}
    values = draw(st.fixed_dictionaries({}, optional=options))
    if optimizer and (tame or draw(st.integers(0, 4))):
        values["lr"] = ("value", draw(st.sampled_from([0.01, 0.3])))
    if optimizer in ("Adaptive", "Plain") and tame and draw(st.integers(0, 4)):
        values["weight_decay"] = ("value", draw(numbers))
    trainable = draw(st.sampled_from([None] * 7 + [True, False, ("after", 3), ("until", 5), ("down", 2)]))
    clip = draw(st.sampled_from([None] * 7 + [False, clip_norm(1.0, nonfinite="skip_step"), clip_value(0.5)]))
    if not values and optimizer is None and trainable is None and clip is None:
        trainable = True
    optional = draw(st.sampled_from([False, True, tame, tame]))
    label = draw(st.sampled_from([None, "tuned", "tuned/1", "depth1"]))
    rule = Rule(
        chosen, label=label, optimizer=optimizer, trainable=_timeline(trainable), clip=clip, optional=optional,
        **{word: python_value(value) for word, value in values.items()},
    )  # fmt: skip
    return rule, Sentence(where, optimizer, {SLOTS[w]: v for w, v in values.items()}, trainable, clip, optional)


def _timeline(trainable: Any) -> Any:
    makers = {"after": after, "until": until, "down": unfreeze_down}
    return makers[trainable[0]](steps(trainable[1])) if isinstance(trainable, tuple) else trainable


@st.composite
def cases(draw: st.DrawFn, tame: bool = False) -> Case:
    """A model and up to six rules, the first of which is usually a base; `tame` ones seldom break a law."""
    model = draw(models())
    occurrences = places_of(model)
    pairs = [draw(_rule(occurrences, i == 0, tame)) for i in range(draw(st.integers(3 if tame else 1, 6)))]
    return Case(model, Plan([rule for rule, _ in pairs]), [sentence for _, sentence in pairs], occurrences)
