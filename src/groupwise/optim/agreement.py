"""Whether the ranks that train one model run one plan.

Another learning rate, clip or step of the schedule on one rank is no error anywhere: weights that were replicas part,
silently and for good. So the ranks compare what they run, once, and again after a load or a regroup. No collective does
it, since a program may build optimizers on some of its ranks only, and a collective would wait for the others for ever.
Each rank writes a digest of its plan to the process group's store as soon as it has one. At the first step the digests
of all ranks with parameters of the same names and shapes are read: under data parallelism every replica has written by
then, as the backward pass needs them all. Mostly they are equal, and that is all.

Where they are not, the ranks write their plans in full for one another, and wait for them for at most `PATIENCE`
seconds. With each plan go signs of whether the ranks are replicas: the largest entries of some gradients and the
weights there, which are equal bit for bit after an exchange of gradients and not otherwise, or the ranks that sharded
parameters are spread over. Stages of a pipeline, and runs with data or seeds of their own, may run different plans.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import torch

from groupwise import _ranks
from groupwise._ranks import Notes, by_rank, named
from groupwise._shards import is_sharded
from groupwise.errors import OptimizerError, listed
from groupwise.optim.live import StepInfo, hyperparameters, names_of
from groupwise.plan import Resolution

Description: TypeAlias = Mapping[str, Mapping[str, str]]
"""What a rank runs: by part (a group, the plan, the scheduler) and property, as text."""

_COMPARED: Final = 8


class Run(NamedTuple):
    """What a rank runs: a resolution, its live groups, and the scheduler's update and lengths if there is one."""

    resolution: Resolution
    groups: Sequence[Mapping[str, Any]]
    step_info: StepInfo | None


class Agreement:
    """What this rank has written of its plan for the others, and whether that was compared with theirs."""

    def __init__(self) -> None:
        self._key = ""
        self._ticket = 0

    @property
    def open(self) -> bool:
        """Whether a comparison is still to be made."""
        return bool(self._key)

    def state(self, run: Run) -> None:
        """Write for the other ranks what this one runs now. A comparison that was made is to be made again."""
        with contextlib.suppress(RuntimeError):  # a store that is gone, or of a kind that cannot do it
            if not self.open:
                self._begin(run)
            if (notes := Notes.under(self._key)) is not None and self.open:
                notes.write(str(self._ticket), _digest(json.dumps(described(run))))

    def check(self, run: Run) -> None:
        """Compare, at the first step that moves anything.

        Raises `OptimizerError`, on every one of them, if ranks that are replicas do not run the same.
        """
        if torch.compiler.is_compiling() or not self.open or _is_idle(run.groups):
            return
        differences = ""
        with contextlib.suppress(RuntimeError):
            if (group := _ranks.world()) is not None and (notes := Notes.under(self._key)) is not None:
                differences = self._differences(notes, run, group.rank)
        if differences:
            raise OptimizerError(
                f"the ranks that train this model do not run one plan: {differences}. Build the optimizer of every "
                "rank from the same plan; models that are to be trained differently need names of their own, as in "
                "GroupedOptimizer({'student': model}, plan)"
            )
        self._key = ""

    def _begin(self, run: Run) -> None:
        """Take a key that ranks with the same parameters share, if there are others, and a ticket under it."""
        infos = sorted((info.name, tuple(info.shape)) for info in run.resolution.parameters)
        name = f"groupwise/{_digest(repr(infos))}"
        group, notes = _ranks.world(), Notes.under(name)
        if group is None or notes is None:
            return
        key = f"{name}/{notes.arrive(f'of rank {group.rank}')}"
        if (notes := Notes.under(key)) is not None:
            self._key, self._ticket = key, notes.arrive("ranks") - 1

    def _differences(self, notes: Notes, run: Run, rank: int) -> str:
        if len(set(_read(notes).values())) <= 1:
            return ""
        signs = _signs(run.groups)
        notes.write(f"plan/{self._ticket}", json.dumps({"rank": rank, "plan": described(run), "signs": signs}))
        plans: dict[int, str] = {}
        for _ in _ranks.polls():
            digests, plans = _read(notes), _read(notes, "plan/")
            if len(set(digests.values())) <= 1:
                return ""
            if plans.keys() >= digests.keys():
                break
        ranks = [json.loads(text) for text in plans.values()]
        replicas = {each["rank"]: each["plan"] for each in ranks if _are_replicas(each["signs"], signs)}
        _let_others_read(notes, len(plans))
        return compared(replicas)


def _let_others_read(notes: Notes, count: int) -> None:
    """Wait until all have read: the store may live on this rank, which is about to raise and end."""
    with contextlib.suppress(RuntimeError):  # another one has read all and ended
        notes.arrive("read")
        for _ in _ranks.polls():
            if notes.count("read") >= count:
                break


def _read(notes: Notes, kind: str = "") -> dict[int, str]:
    """What the ranks have written so far, by ticket."""
    found = notes.read([f"{kind}{i}" for i in range(notes.count("ranks"))])
    return {int(name.removeprefix(kind)): text for name, text in found.items()}


def described(run: Run) -> dict[str, dict[str, str]]:
    """What a rank runs, equal on ranks that run the same: nothing in it is of the process or the device."""
    resolution = run.resolution
    parts: dict[str, dict[str, str]] = {}
    if run.step_info is not None:
        update, total_steps, steps_per_epoch = run.step_info
        lengths = {"total_steps": str(total_steps), "steps_per_epoch": str(steps_per_epoch)}
        parts["PlanScheduler"] = {"update": str(update), **lengths}
    parts["plan"] = {"clip": _text(resolution.clip), "values": _text(dict(resolution.values))}
    planned = {group.name: group for group in resolution.groups}
    for live in run.groups:
        values = {key: _text(value) for key, value in sorted(hyperparameters(live).items()) if key != "initial_lr"}
        declared = {f"{key}, as declared": _text(text) for key, text in sorted(live.get("declared", {}).items())}
        own = planned.get(live.get("name", ""))
        planned_values = {"trainable": _text(own.timeline), "clip": _text(own.clip)} if own is not None else {}
        measured = [factor for setting in own.settings.values() for factor in setting.measured] if own else []
        if measured:
            planned_values["measured"] = listed(map(repr, measured))
        if own is not None and own.parts:
            planned_values["parts"] = listed(sorted(own.parts_as_text), 10**6)
        fixed = {"algorithm": str(live.get("algorithm")), "parameters": listed(sorted(names_of(live)), 10**6)}
        parts[f"group {live.get('name')!r}"] = {**fixed, **values, **declared, **planned_values}
    return parts


def compared(plans: Mapping[int, Description]) -> str:
    """In what the plans of some ranks differ, in words; empty if they do not."""
    found, plans = list[str](), dict(sorted(plans.items()))
    parts = dict.fromkeys(part for plan in plans.values() for part in plan)
    for part in parts:
        with_it = {rank: plan.get(part) for rank, plan in plans.items()}
        if None in with_it.values():
            here = [rank for rank, own in with_it.items() if own is not None]
            gone = [rank for rank, own in with_it.items() if own is None]
            found.append(f"{part} is on {named(here)} and not on {named(gone)}")
            continue
        for key in dict.fromkeys(key for own in with_it.values() for key in own or {}):
            sides = by_rank({rank: (own or {}).get(key, "absent") for rank, own in with_it.items()})
            if len(sides) > 1:
                found.append(f"{part}: {key} is {' and '.join(sides)}")
    return "; ".join(found[:3]) + (f" (and {len(found) - 3} more differences)" if len(found) > 3 else "")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _text(value: object) -> str:
    """A value as text; a tensor is left on its device, an address is not another process's."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _is_idle(groups: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a step moves nothing, as the one by which checkpointing has the state made."""
    return all(not isinstance(rate := group.get("lr"), torch.Tensor) and rate == 0 for group in groups)


def _signs(groups: Iterable[Mapping[str, Any]]) -> list[str]:
    """Signs by which replicas are known: for some of the parameters one each, empty where there is none."""
    by_name = sorted((name, p) for group in groups for name, p in zip(names_of(group), group["params"], strict=True))
    moved = [p for _, p in by_name if p.grad is not None]
    return [_sign(p) for p in moved[:: max(1, len(moved) // _COMPARED)]]


def _sign(p: Any) -> str:
    if is_sharded(p):
        return f"spread over {p.device_mesh.mesh.flatten().tolist()}"
    gradient = p.grad.coalesce().values() if p.grad.layout == torch.sparse_coo else p.grad
    if gradient.numel() == 0:
        return ""
    place = int(gradient.detach().abs().flatten().argmax())
    entry = gradient.detach().flatten()[place].item()
    return f"{place} {entry!r} {p.detach().flatten()[place].item()!r}" if entry else ""


def _are_replicas(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    signs = [(a, b) for a, b in zip(theirs, ours, strict=False) if a and b]
    return 2 * sum(a == b for a, b in signs) > len(signs)
