"""What a plan by role rests on, without a look at a forward: roles guessed from a shape or a place alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from groupwise.errors import listed
from groupwise.plan.cautions import roles_in
from groupwise.plan.rule import Rule
from groupwise.select import ParameterInfo
from groupwise.select.roles import rests_on_shape_or_place


def guesses_of(rules: Sequence[Rule], parameters: Sequence[ParameterInfo]) -> Iterator[str]:
    """A sentence for each role that some rule asks for, with the parameters that have it by a guess of that kind."""
    asked = dict.fromkeys(role for rule in rules for role in roles_in(rule.match, excluded=True))
    for role in asked:
        found: dict[str, list[str]] = {}
        for info in parameters:
            reasons = [why for occurrence in info.occurrences for name, why in occurrence.reasons if name == role]
            if info.basis is None and reasons and all(map(rests_on_shape_or_place, reasons)):
                found.setdefault(reasons[0], []).append(info.name)
        for why, names in found.items():
            yield f"guessed: {listed(names, 4)} {'is' if len(names) == 1 else 'are'} {role!r} as {why}"
