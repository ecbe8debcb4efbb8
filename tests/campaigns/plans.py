"""Plan files from strangers: read, or refused in few words of ours, in bounded time and memory; and whatever is read
can be printed, resolved and written again.
"""

import contextlib
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from groupwise import Plan
from groupwise.errors import GroupwiseError
from groupwise.plan import Algorithm
from groupwise.schedules.files import KINDS
from groupwise.select import parameters_of
from groupwise.select.files import KEYS as SELECTOR_KEYS
from tests.campaigns.campaign import Attempt
from tests.campaigns.outcome import Outcome, foreign, loss, survived
from tests.plan.models import Net

LONGEST: Final = 2000
KEYS: Final = (
    "rule", "clip", "values", "balance", "match", "label", "optimizer", "trainable", "optional", "lr", "betas", "beta1",
    "scale", "layer_decay", "exact", "norm", "value", "adaptive", "per", "eps", "after", "until", "unfreeze_down",
    "method", "weights", "min", "max", "above", "below", "of", "over", "warmup", "at", "end", "by", "hyperparameters",
    "heads", "momentum", "weight_decay", "__class__", "self", "<<", "lr ", "", *KINDS, *SELECTOR_KEYS,
)  # fmt: skip
NAMES: Final = ("*", "head.*", "backbone.0.weight", "embed", "**", "[!", "[a-", "?", "a" * 300, "\x1b[2J", "\u202eab")
NUMBERS: Final = (
    0, 1, -1, 2, 0.5, 1e-3, 1e308, -1e308, 5e-324, float("nan"), float("inf"), -float("inf"), 2**31, 2**63, -(2**63),
    2**64, 10**30, 10**400, True, False, None,
)  # fmt: skip
TEXTS: Final = (
    "AdamW", "SGD", "Muon", "os:system", "a.b:C", ":", "5%", "500%", "-5%", "2 epochs", "0 steps", "1e999 steps",
    "1e-3", "nan", "1_000", "norm", "bias", "weight", "Linear", "module", "parameter", "network", "\ud800", "\0",
    "x" * 5000,
    "é" * 200, "\n", "9" * 5000, "FAMO", "CAGrad", "Smoothed", "weighted", "raw",
)  # fmt: skip
ALGORITHMS: Final = {
    "AdamW": Algorithm("AdamW", {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}),
    "SGD": Algorithm("SGD", {"lr": 1e-3, "momentum": 0, "weight_decay": 0}),
}
GOOD: Final[dict[str, Any]] = {
    "clip": {"norm": 5.0},
    "rule": [
        {"match": "*", "optimizer": "AdamW", "lr": {"cosine": 3e-4, "warmup": "5%"}, "betas": [0.9, 0.95]},
        {
            "match": [{"role": ["norm", "bias"], "depth": {"min": 1}}, "head.*"],
            "lr": {"scale": 0.1, "layer_decay": 0.75},
        },
        {"match": {"regex": "backbone\\.[0-9]+\\.weight"}, "trainable": {"after": "2 epochs"}, "optional": True},
        {"match": "head", "lr": {"then": [{"constant": 0.1}, {"linear": 0.1}], "at": "80%"}, "clip": {"value": 0.5}},
    ],
    "values": {"teacher": {"cosine": 0.996, "end": 1.0}},
    "balance": {"method": "Smoothed", "rate": 0.9, "of": {"method": "CAGrad", "c": 0.4}},
}


def scalar(draw: random.Random) -> Any:
    return draw.choice(draw.choice((NAMES, NUMBERS, TEXTS)))


def data(draw: random.Random, depth: int = 3) -> Any:
    """Anything at all, mostly of words that a plan knows."""
    kind = draw.random()
    if depth == 0 or kind < 0.5:
        return scalar(draw)
    if kind < 0.7:
        return [data(draw, depth - 1) for _ in range(draw.randrange(4))]
    return {draw.choice(KEYS): data(draw, depth - 1) for _ in range(draw.randrange(4))}


def otherwise(draw: random.Random) -> Any:
    """A good plan, with something else at a few places of it."""
    plan: Any = json.loads(json.dumps(GOOD))
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = plan
        while True:
            key = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if draw.random() < 0.35 or not isinstance(at[key], dict | list) or not at[key]:
                break
            at = at[key]
        if isinstance(at, dict) and draw.random() < 0.3:
            at[draw.choice(KEYS)] = data(draw)
        else:
            at[key] = data(draw)
    return plan


def as_json(draw: random.Random) -> str:
    return json.dumps(otherwise(draw) if draw.random() < 0.7 else {"rule": [data(draw)], draw.choice(KEYS): data(draw)})


def as_yaml(draw: random.Random) -> str:
    return str(yaml.safe_dump(json.loads(as_json(draw)), allow_unicode=True, sort_keys=False))


def expression(draw: random.Random, depth: int = 4) -> str:
    """A regular expression, as likely as not one that backtracks without end, or none at all."""
    if depth == 0:
        return draw.choice((*"ab.0w_", r"\w", r"\d", "[a-z]", "[^.]", r"\b", "^", "$", r"\1", "(?i)", "(", "é"))
    inner = expression(draw, depth - 1)
    return draw.choice(
        (
            f"({inner})+", f"({inner})*", f"({inner}|{inner})*", f"(?:{inner}){{1,{draw.choice((3, 50, 9999))}}}",
            f"{inner}{expression(draw, depth - 1)}", f"({inner})*?{inner}", f"(?={inner})*", f"(?<!{inner})",
            f"({inner}){{{draw.choice((2, 1000, 10**9))}}}",
        )
    )  # fmt: skip


def with_expression(draw: random.Random) -> str:
    rule = {"match": {"regex": expression(draw) + draw.choice(("$", "!", "", "x"))}, "lr": 1.0, "optional": True}
    return json.dumps({"rule": [GOOD["rule"][0], rule]})


def with_glob(draw: random.Random) -> str:
    name = "".join(draw.choice(("*", "*", "?", ".", "a", "[a-z]", "[!a]", "backbone", "[")) for _ in range(60))
    return json.dumps({"rule": [GOOD["rule"][0], {"match": name, "lr": 1.0, "optional": True}]})


def with_slips(draw: random.Random) -> str:
    """Good TOML with a few slips of the pen."""
    text = Plan.loads(json.dumps(GOOD), format="json").dumps()
    for _ in range(draw.randint(1, 5)):
        at, width = draw.randrange(len(text)), draw.randrange(7)
        slip = draw.choice(
            ('"', "[", "]", "{", "}", "=", "\n", ",", ".", "0", "-", "'", "", "\0", "é", "rule", "[[", "#")
        )
        text = text[:at] + slip + text[at + width :]
    return text


def deep_or_long(draw: random.Random) -> tuple[str, str]:
    """Nesting, names, keys, numbers and lists without measure, in each of the three forms."""
    n = int(10 ** draw.uniform(1, 5))
    word = draw.choice(("a", "é", "\\", "\x1b", "9", "(", "*"))
    toml = ("a = " + "[" * n + "]" * n, "a." * n + "a = 1", f'["{word * n}"]\nx = 1', "[[rule]]\nmatch = 0x" + "f" * n,
            f"[[rule]]\nmatch = {json.dumps(word * n)}\nlr = 1\n{'x' * n} = 1", "[[rule]]\n" * n,
            "[[rule]]\nmatch = '*'\nlr = " + "{scale = " * min(n, 5000) + "1" + "}" * min(n, 5000),
            f"[[rule]]\nmatch = '*'\nlr = {'9' * n}.0e{'9' * min(n, 300)}",
            f"[values]\n{'v' * n} = {{ linear = 1 }}")  # fmt: skip
    as_json = ("[" * n + "]" * n, '{"a":' * n + "1" + "}" * n, json.dumps({"rule": [{"match": ["*"] * n, "lr": 1}]}),
               json.dumps({"rule": [{"match": {"shape": ["*"] * n}, "lr": 1}]}), f'{{"rule": [{"9" * n}]}}',
               json.dumps({"rule": [{"match": {"name": [word * 50] * (n // 20)}, "lr": 1}]}),
               json.dumps({"balance": {"method": word * n}, "rule": GOOD["rule"]}))  # fmt: skip
    as_yaml = (merged(draw), aliased(draw), "[" * min(n, 9000), "- " * min(n, 9000), "? " * min(n, 2000),
               f"rule: !!{word * min(n, 1000)} x", f"rule: &{'a' * n} [1]", f"? {word * n}\n: 1",
               "a: b\n" * min(n, 5000))  # fmt: skip
    form, texts = draw.choice((("toml", toml), ("json", as_json), ("yaml", as_yaml)))
    return draw.choice(texts), form


def merged(draw: random.Random) -> str:
    """Tables of YAML that merge one another, over and over."""
    levels, fan = draw.randint(1, 40), draw.choice((1, 2, 9, 100))
    lines = ["a0: &a0 {match: '*', lr: 1, optimizer: AdamW}"]
    lines += [f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * fan)}]\n  k{i}: 1" for i in range(1, levels)]
    return "\n".join([*lines, f"rule: [{{<<: *a{levels - 1}}}]"])


def aliased(draw: random.Random) -> str:
    """A list of lists of lists, each said once."""
    levels, fan = draw.randint(1, 12), draw.choice((2, 10, 1000))
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * fan)}]" for i in range(1, levels)]
    return "\n".join([*lines, f"rule: *a{levels - 1}"])


SOURCES: Final[tuple[Callable[[random.Random], tuple[str, str]], ...]] = (
    lambda draw: (as_json(draw), "json"),
    lambda draw: (as_yaml(draw), "yaml"),
    lambda draw: (with_expression(draw), "json"),
    lambda draw: (with_glob(draw), "json"),
    lambda draw: (with_slips(draw), "toml"),
    deep_or_long,
)


@contextlib.contextmanager
def ready(folder: Path) -> Iterator[Attempt]:
    """Each source in turn."""
    infos = parameters_of(Net())

    def attempt(draw: random.Random) -> Outcome:
        text, form = draw.choice(SOURCES)(draw)
        path = folder / f"plan.{form}"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            plan = Plan.load(path)
        except GroupwiseError as error:
            return _told(error, path)
        try:
            written = plan.dumps()
            if Plan.loads(written) != plan:
                return loss(f"written and read again it is another plan: {written[:300]}")
        except GroupwiseError as error:
            return _told(error, None)
        str((plan, plan.rules))
        try:
            resolution = plan.resolve(infos, ALGORITHMS)
            str(resolution)
        except GroupwiseError as error:
            return survived("resolution refused") if len(str(error)) <= LONGEST else foreign(error)
        return survived("resolved")

    yield attempt


def _told(error: GroupwiseError, path: Path | None) -> Outcome:
    """Whether a refusal names the file, in few words, none of which a terminal obeys."""
    said = str(error)
    named = path is None or str(path) in said
    clean = not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", said)
    return (
        survived("refused" if path else "not written") if named and clean and len(said) <= LONGEST else foreign(error)
    )
