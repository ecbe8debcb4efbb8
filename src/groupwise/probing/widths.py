"""A narrow model in the place of a wide one, where the plan says how its rates follow the width.

Rounds on a narrow model cost a fraction. What they find is a factor on all rates, and `fan_in(…)` then makes of it the
rates of the wide one (Yang et al. 2022, Tensor Programs V). Without such a factor that would be a guess, so it
is refused; parameters that grow without one are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import torch

from groupwise._finding import Finding
from groupwise._spelling import shown
from groupwise.errors import ProbeError, ResolutionError, listed, within
from groupwise.optim import GroupedOptimizer
from groupwise.plan import Plan, Resolution
from groupwise.plan.shape_factors import fan
from groupwise.probing.single import ALIKE
from groupwise.select import ParameterInfo

_BY_ENTRY: Final = (*ALIKE, "Adamax", "SparseAdam")
"""Whose updates are of one size in each entry, so that what a matrix adds to a unit grows with its fan-in."""

_FORM: Final = "width=(16, 256): that of the runs, and that of the run that is planned"


@final
@dataclass(frozen=True)
class Widths:
    """From which width to which advice is carried.

    Attributes:
        narrow, wide: the widths.
        sizes: the parameters of both models, in numbers.
        rates: by group of the wide model, its highest learning rate as the plan has it.
        bare: parameters whose fan-in grows with the width, whose updates grow with it, and whose rate does not follow.
    """

    narrow: int
    wide: int
    sizes: tuple[int, int]
    rates: Mapping[str, float]
    bare: tuple[str, ...]

    def said(self) -> str:
        """In a sentence."""
        return (
            f"Width: runs were of width {self.narrow}, of {self.sizes[0]:,} parameters; the plan's factors of shape "
            f"carry the rates to width {self.wide}, of {self.sizes[1]:,}. One AdamW in its place is not tried, since "
            "nothing would carry its rate."
        )

    def findings(self) -> Iterator[Finding]:
        """The parameters to which a rate is not carried."""
        if self.bare:
            yield Finding(
                "width",
                "warning",
                self.bare,
                f"the fan-in of {listed([repr(name) for name in self.bare], 4)} grows with the width, and no factor "
                f"has the rate follow: what suits width {self.narrow} may be too high at {self.wide}",
                "a factor such as fan_in(…) for these, unless the model divides what they give",
            )


def checked_width(given: object, model: object) -> tuple[int, int]:
    """Raises `ProbeError` for what is not two widths, the lower first, or a model that is no function of one."""
    if not callable(model) or isinstance(model, torch.nn.Module):
        raise ProbeError(f"with width, model is a function that makes a model of a width, not {shown(model)}")
    pair = tuple(given) if isinstance(given, tuple | list) else ()
    whole = all(isinstance(each, int) and not isinstance(each, bool) and each > 0 for each in pair)
    if len(pair) != 2 or not whole or pair[0] >= pair[1]:
        raise ProbeError(f"width is two whole numbers above 0, the lower first, not {shown(given)}: {_FORM}")
    return pair


def carried(model: Callable[[int], Any], plan: Plan, width: tuple[int, int]) -> Widths:
    """What holds of the plan on the models of both widths. Raises `ProbeError` where that carries no rates."""
    both = [_resolved(model, plan, each) for each in width]
    narrow, wide = ({info.name: info for info in each.parameters} for each in both)
    _check_alike(both, width, narrow, wide)
    followed = [name for name in narrow if _follows(name, both)]
    if not followed:
        raise ProbeError(
            f"no rate of the plan follows the width, and what suits width {width[0]} would be a guess at {width[1]}: "
            f"say how rates follow it, as in Rule(role('matrix'), lr=fan_in({width[0]})), or probe without width"
        )
    bare = (name for name in narrow if name not in followed and _grows(narrow[name], wide[name], both[1]))
    sizes = tuple(sum(info.numel for info in each.values()) for each in (narrow, wide))
    return Widths(*width, sizes, rates_of(both[1]), tuple(bare))  # type: ignore[arg-type]


def rates_of(resolution: Resolution) -> dict[str, float]:
    """By group, its highest learning rate as the plan has it."""
    peaks = {group.name: group.settings["lr"].peak for group in resolution.groups if "lr" in group.settings}
    return {name: float(peak) for name, peak in peaks.items() if isinstance(peak, int | float)}


def _resolved(model: Callable[[int], Any], plan: Plan, width: int) -> Resolution:
    with within(f"width {width}"):
        return GroupedOptimizer(model(width), plan).resolution


def _check_alike(
    both: list[Resolution],
    width: tuple[int, int],
    narrow: Mapping[str, ParameterInfo],
    wide: Mapping[str, ParameterInfo],
) -> None:
    """Raises `ProbeError` unless the models have the same parameters under the same rules, in other sizes."""
    if other := sorted(narrow.keys() ^ wide.keys()):
        raise ProbeError(
            f"the models of width {width[0]} and {width[1]} have other parameters, {listed(other, 4)}: the function "
            "has to make the same layers at each width"
        )
    if all(narrow[name].shape == wide[name].shape for name in narrow):
        raise ProbeError(
            f"the models of width {width[0]} and {width[1]} have the same shapes: the width changes nothing"
        )
    for name in narrow:
        own = [each.resolved[name] for each in both]
        if len({(settings.algorithm, settings.declaring) for settings in own}) > 1:
            labels = [_labels(each, name) for each in both]
            raise ProbeError(
                f"{name!r} is under {labels[0]} at width {width[0]} and under {labels[1]} at width {width[1]}: match "
                "by what does not change with the width, as names and roles"
            )


def _labels(resolution: Resolution, name: str) -> str:
    own = resolution.resolved[name]
    return f"{listed([repr(resolution.rules[i].label) for i in sorted(own.declaring)], 6)} ({own.algorithm})"


def _follows(name: str, both: list[Resolution]) -> bool:
    """Whether the rate of a parameter differs between the widths."""
    settings = [each.resolved[name].settings.get("lr") for each in both]
    return len({None if setting is None else str(setting.peak) for setting in settings}) > 1


def _grows(narrow: ParameterInfo, wide: ParameterInfo, resolution: Resolution) -> bool:
    """Whether what enters a layer grows, and with it what an update adds to a unit."""
    own = resolution.resolved[wide.name]
    if own.algorithm not in _BY_ENTRY or "lr" not in own.settings:
        return False
    try:
        return fan(wide, "fan_in") > fan(narrow, "fan_in")
    except ResolutionError:  # a vector, a table, a stack
        return False
