"""What a plan says that its reader may not mean: listed under the table, and once as a warning.

"Muon for matrices" is written as a rule by role. Where the bulk of a model has another role (the stacked experts of a
mixture, the kernels of a convolutional net) such a plan leaves it to its base rule. Tables, heads, norms, biases and
routers are left to it by intent, so they are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from groupwise.errors import listed
from groupwise.plan.algorithm import Algorithm
from groupwise.plan.cascade import ResolvedSettings
from groupwise.plan.rule import Rule, title
from groupwise.select import ParameterInfo
from groupwise.select.by_fact import Role
from groupwise.select.selectors import AllOf, AnyOf, Not, Selector

_BULK = frozenset({"weight", "matrix", "stack"})
_TAKING = ("stack", "conv", "expert", "matrix")
_APART = frozenset({"embedding", "head", "norm", "bias", "scalar", "router"})


def cautions_of(
    rules: Sequence[Rule], parameters: Sequence[ParameterInfo], matches: Sequence[tuple[int, ...]]
) -> tuple[str, ...]:
    """What is to be said; empty for most plans."""
    by_role = [i for i, rule in enumerate(rules) if _asks_for_bulk(rule.match)]
    if not by_role:
        return ()
    catch_all = set(range(len(rules))).intersection(*set(matches))
    naming = all(rules[i].optimizer is not None for i in by_role)
    counts = {i for i in range(len(rules)) if i not in catch_all and (rules[i].optimizer is not None or not naming)}
    untaken = {matching for matching in set(matches) if not counts.intersection(matching)}
    bulk = [p for p, info in enumerate(parameters) if _is_bulk(info)]
    left = [p for p in bulk if matches[p] in untaken]
    total, lost = (sum([parameters[p].numel for p in chosen]) for chosen in (bulk, left))
    if not lost or 2 * lost <= total:
        return ()
    base = [i for i in matches[left[0]] if i in catch_all]
    return (_sentence(rules, by_role, base, [parameters[p] for p in left], lost / total),)


def rates_left_by(
    rules: Sequence[Rule],
    parameters: Sequence[ParameterInfo],
    resolved: Sequence[ResolvedSettings],
    algorithms: Mapping[str, Algorithm],
) -> tuple[str, ...]:
    """Parameters that a rule takes out of an algorithm without a rate of their own, and the rate that they fall to."""
    distinct = {id(decided.outcomes): decided for decided in resolved}
    fallen_to = {key: _fallen(rules, decided, algorithms) for key, decided in distinct.items()}
    fallen: dict[tuple[int, str, int, str], list[str]] = {}
    for info, decided in zip(parameters, resolved, strict=True):
        if (key := fallen_to[id(decided.outcomes)]) is not None:
            fallen.setdefault(key, []).append(info.name)
    return tuple(
        f"{title(rules, namer)} takes {listed(names, 3)} out of {algorithm} and declares no rate: "
        f"{text} stands, as {title(rules, source)} declares"
        for (namer, algorithm, source, text), names in fallen.items()
    )


def _fallen(
    rules: Sequence[Rule], decided: ResolvedSettings, algorithms: Mapping[str, Algorithm]
) -> tuple[int, str, int, str] | None:
    """The rule that takes parameters out of an algorithm, the algorithm, the rule whose rate they fall to, the rate."""
    rate = algorithms[decided.algorithm].learning_rate if decided.algorithm is not None else None
    outcomes = decided.outcomes.get(rate, ()) if rate is not None else ()
    dropped = [outcome.rule for outcome in outcomes if outcome.status.startswith("declared for")]
    standing = [outcome for outcome in outcomes if outcome.status == "last word"]
    namer = decided.outcomes["optimizer"][-1].rule if dropped else 0
    if not dropped or not standing or not standing[0].rule < dropped[-1] < namer:
        return None
    return namer, str(rules[dropped[-1]].optimizer), standing[0].rule, standing[0].text


def unset_in_vain(
    rules: Sequence[Rule], parameters: Sequence[ParameterInfo], resolved: Sequence[ResolvedSettings]
) -> tuple[str, ...]:
    """Rules that say `clip=False` where no rule clips, under a plan whose own clip is over everything."""
    idle: dict[int, list[str]] = {}
    busy: set[int] = set()
    for info, decided in zip(parameters, resolved, strict=True):
        outcomes = decided.outcomes.get("clip", ())
        unset = next((outcome.rule for outcome in outcomes if outcome.status == "last word"), None)
        if unset is None or rules[unset].clip is not False:
            continue
        if any(rules[outcome.rule].clip for outcome in outcomes):
            busy.add(unset)
        else:
            idle.setdefault(unset, []).append(info.name)
    return tuple(
        f"{title(rules, i)} says clip=False for {listed(names, 3)}, which no rule clips; the plan's own clip is "
        'over everything, and clips it all the same. To leave it out give that clip to a rule: Rule("*", clip=…)'
        for i, names in idle.items()
        if i not in busy
    )


def _sentence(
    rules: Sequence[Rule], by_role: Sequence[int], base: Sequence[int], left: Sequence[ParameterInfo], share: float
) -> str:
    roles = [role for role in _TAKING if any(role in info.roles for info in left)]
    way_out = f'role("{roles[0]}") takes in {listed([i.name for i in left if roles[0] in i.roles], 1)}' if roles else ""
    if roles and roles[0] in ("stack", "expert"):
        way_out += ", which parts=[Parts(…, stack=True)] makes matrices of"
    to = title(rules, base[0]) if base else "no rule"
    return (
        f"{listed([title(rules, i) for i in by_role])} is by role, and leaves {share:.1%} of the entries of the "
        f"weights with two or more dimensions (tables, heads and routers aside) to "
        f"{to}: {listed([i.name for i in left], 3)}; "
        f"{f'{way_out}; ' if way_out else ''}a rule of their own says that it is meant"
    )


def _is_bulk(info: ParameterInfo) -> bool:
    return info.requires_grad and sum([size > 1 for size in info.shape]) > 1 and _APART.isdisjoint(info.roles)


def _asks_for_bulk(match: Selector) -> bool:
    """Whether a selector asks for weights by role: "weight", but not "weight & head"."""
    if isinstance(match, AnyOf):
        return any(map(_asks_for_bulk, match.parts))
    if isinstance(match, AllOf):
        return any(map(_asks_for_bulk, match.parts)) and not any(map(_asks_apart, match.parts))
    return isinstance(match, Role) and match.word in _BULK


def _asks_apart(match: Selector) -> bool:
    if isinstance(match, AnyOf):
        return all(map(_asks_apart, match.parts))
    return isinstance(match, Role) and match.word in _APART


def roles_in(match: Selector, excluded: bool = False) -> Iterator[str]:
    """The roles that a selector asks for, with those that it excludes if these count too."""
    if isinstance(match, Role):
        yield match.word
    elif isinstance(match, AllOf | AnyOf):
        for part in match.parts:
            yield from roles_in(part, excluded)
    elif excluded and isinstance(match, Not):
        yield from roles_in(match.part, excluded)
