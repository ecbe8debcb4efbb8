"""Extra keys: what a class reads from its group dicts and its constructor does not take.

GaLore and APOLLO run their low-rank update where a group has a `rank`, SAM variants and others have switches of that
kind; `torch.optim` passes on whatever key a group dict has. So a class is always built with a dict for such a group,
and which keys it asks its group for is seen in the probe: a key that nobody reads, beside one like it that is asked for
and is not there, is a typing mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from groupwise.errors import OptimizerError, ResolutionError, listed, nearest
from groupwise.optim.algorithms import TorchAlgorithms, hyperparameters_of
from groupwise.plan import Group, Resolution
from groupwise.plan.mistakes import Mistakes

_LIKE, _ALMOST, _SHORT = 0.7, 0.8, 6  # as difflib measures likeness; a short argument is like too many keys


class AskedGroup(dict[str, Any]):
    """A group dict that notes which keys it is `asked` for."""

    def __init__(self, entries: Mapping[str, Any]) -> None:
        super().__init__(entries)
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As of a dict."""
        self.asked.add(key)
        return super().get(key, default)


def construct(
    cls: type[torch.optim.Optimizer], params: Sequence[torch.Tensor], values: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """An optimizer of a class for one group: what its constructor does not take of `values` stands in the group."""
    arguments = hyperparameters_of(cls)
    extra = {name: value for name, value in values.items() if name not in arguments}
    build: Callable[..., torch.optim.Optimizer] = cls
    own = {name: value for name, value in values.items() if name in arguments}
    built = build([AskedGroup({"params": list(params), **extra})] if extra else params, **own)
    dropped = [name for name in extra if name not in built.param_groups[0].keys()]  # noqa: SIM118  # does not ask
    if dropped:
        raise OptimizerError(f"{cls.__name__} does not keep {dropped[0]!r}, an extra key, in its groups")
    return built


def values_of(group: Mapping[str, Any], arguments: Iterable[str]) -> dict[str, Any]:
    """What a live group holds of a constructor's arguments, and its extra keys."""
    return {name: group[name] for name in dict.fromkeys([*arguments, *group.get("declared", ())]) if name in group}


def extra_of(group: Group, algorithms: Mapping[str, Any]) -> list[str]:
    """The extra keys that rules declare for a group."""
    return [name for name in group.settings if not algorithms[str(group.algorithm)].knows(name)]


def check_read(
    resolution: Resolution, algorithms: TorchAlgorithms, asked: Mapping[str, Iterable[str]], mistakes: Mistakes
) -> list[str]:
    """A remark for each extra key that no group of an algorithm was asked for; where it is likely a typing mistake, a
    `ResolutionError` goes to `mistakes` instead. `asked` has the keys that were, by group name.
    """
    remarks = []
    for algorithm in dict.fromkeys(group.algorithm for group in resolution.groups if group.algorithm is not None):
        groups = [group for group in resolution.groups if group.algorithm == algorithm and group.name in asked]
        declaring = {key: group for group in groups for key in extra_of(group, algorithms)}
        read = {key for group in groups for key in asked[group.name]}
        for key, group in ((key, group) for key, group in declaring.items() if key not in read):
            arguments = algorithms[algorithm].defaults
            meant = _meant(key, read - {*arguments, *declaring, "params"}, arguments)
            if not meant:
                remarks.append(f"{algorithm} reads no {key!r} in its first update: it stands in the groups for others")
                continue
            with mistakes.collecting():
                raise ResolutionError(
                    f"{resolution.declaring_rules(group, key)}: {algorithm} reads no {key!r} from its groups; "
                    f"did you mean {listed(map(repr, meant))}?"
                )
    return remarks


def _meant(key: str, missing: Iterable[str], arguments: Iterable[str]) -> list[str]:
    """What a key is probably a misspelling of: a key that is asked for and is not there, or an argument."""
    long = (name for name in arguments if len(name) >= _SHORT and abs(len(name) - len(key)) <= 1)
    return nearest(key, sorted(missing), limit=1, cutoff=_LIKE) or nearest(key, long, limit=1, cutoff=_ALMOST)
