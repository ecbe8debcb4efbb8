"""Whether the ranks that train one model run one plan.

Another learning rate, clip or step of the schedule on one rank is no error anywhere: weights that were replicas part,
silently and for good. So the ranks compare what they run, once, and again after a load or a regroup. No collective does
it, since a program may build optimizers on some of its ranks only, and a collective would wait for the others for ever.
Each rank writes a digest of its plan to the process group's store as soon as it has one. At the first step the digests
of all ranks with parameters of the same names and shapes are read: under data parallelism every replica has written by
then, as the backward pass needs them all. Mostly they are equal, and that is all.

Where they are not, the ranks tell one another their plans in full, for at most `PATIENCE` seconds, with signs of
whether they are replicas: the largest entries of some gradients and the weights there, which are equal bit for bit
after an exchange of gradients and not otherwise, or the ranks that sharded parameters are spread over. Stages of a
pipeline, and runs with data or seeds of their own, may run different plans.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import torch
import torch.distributed as dist

from groupwise import _torch
from groupwise.errors import OptimizerError, listed
from groupwise.optim.live import StepInfo, hyperparameters, names_of
from groupwise.optim.shards import is_sharded
from groupwise.plan import Resolution

Description: TypeAlias = Mapping[str, Mapping[str, str]]
"""What a rank runs: by part (a group, the plan, the scheduler) and property, as text."""

PATIENCE: Final = 10.0
_LOOKED_AT: Final = 8


class Run(NamedTuple):
    """What a rank runs: a resolution, its live groups, and the scheduler's update and lengths if there is one."""

    resolution: Resolution
    groups: Sequence[Mapping[str, Any]]
    step_info: StepInfo | None


class Store(Protocol):
    """What is used of `torch.distributed.Store`."""

    def set(self, key: str, value: str) -> object: ...

    def add(self, key: str, number: int) -> int: ...

    def check(self, keys: list[str]) -> bool: ...

    def multi_get(self, keys: list[str]) -> list[bytes]: ...


class Agreement:
    """What this rank has told the others of its plan, and whether that was compared with theirs."""

    def __init__(self) -> None:
        self._key = ""
        self._ticket = 0

    @property
    def open(self) -> bool:
        """Whether a comparison is still to be made."""
        return bool(self._key)

    def state(self, run: Run) -> None:
        """Tell the other ranks what this one runs now. A comparison that was made is to be made again."""
        store = _store()
        if store is not None:
            with contextlib.suppress(RuntimeError):  # a store that is gone, or of a kind that cannot do it
                if not self.open:
                    self._begin(store, run)
                store.set(f"{self._key}/{self._ticket}", _digest(json.dumps(described(run))))

    def check(self, run: Run) -> None:
        """Compare, at the first step that moves anything.

        Raises `OptimizerError`, on every one of them, if ranks that are replicas do not run the same.
        """
        if torch.compiler.is_compiling() or not self.open or _is_idle(run.groups):
            return
        store, differences = _store(), ""
        if store is not None:
            with contextlib.suppress(RuntimeError):
                differences = self._differences(store, run)
        if differences:
            raise OptimizerError(
                f"the ranks that train this model do not run one plan: {differences}. Build the optimizer of every "
                "rank from the same plan; models that are to be trained differently need names of their own, as in "
                "GroupedOptimizer({'student': model}, plan)"
            )
        self._key = ""

    def _begin(self, store: Store, run: Run) -> None:
        infos = sorted((info.name, tuple(info.shape)) for info in run.resolution.parameters)
        name = f"groupwise/{_digest(repr(infos))}"
        turn = store.add(f"{name}/of rank {dist.get_rank()}", 1)
        self._key = f"{name}/{turn}"
        self._ticket = store.add(f"{self._key}/ranks", 1) - 1

    def _differences(self, store: Store, run: Run) -> str:
        if len(set(self._read(store, "").values())) <= 1:
            return ""
        signs = _signs(run.groups)
        mine = {"rank": dist.get_rank(), "plan": described(run), "signs": signs}
        store.set(f"{self._key}/told/{self._ticket}", json.dumps(mine))
        told: dict[int, bytes] = {}
        for _ in _polls():
            digests, told = self._read(store, ""), self._read(store, "/told")
            if len(set(digests.values())) <= 1:
                return ""
            if told.keys() >= digests.keys():
                break
        ranks = [json.loads(text) for text in told.values()]
        replicas = {rank["rank"]: rank["plan"] for rank in ranks if _are_replicas(rank["signs"], signs)}
        self._let_others_read(store, len(told))
        return compared(replicas)

    def _let_others_read(self, store: Store, count: int) -> None:
        """Wait until all have read: the store may live on this rank, which is about to raise and end."""
        with contextlib.suppress(RuntimeError):  # another one has read all and ended
            store.add(f"{self._key}/read", 1)
            for _ in _polls():
                if store.add(f"{self._key}/read", 0) >= count:
                    break

    def _read(self, store: Store, what: str) -> dict[int, bytes]:
        """What the ranks have written so far, by ticket."""
        keys = {i: f"{self._key}{what}/{i}" for i in range(store.add(f"{self._key}/ranks", 0))}
        if not store.check([*keys.values()]):
            keys = {i: key for i, key in keys.items() if store.check([key])}
        return dict(zip(keys, store.multi_get([*keys.values()]), strict=True)) if keys else {}


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
        told = {"trainable": _text(own.timeline), "clip": _text(own.clip)} if own is not None else {}
        fixed = {"algorithm": str(live.get("algorithm")), "parameters": listed(sorted(names_of(live)), 10**6)}
        parts[f"group {live.get('name')!r}"] = {**fixed, **values, **declared, **told}
    return parts


def compared(plans: Mapping[int, Description]) -> str:
    """In what the plans of some ranks differ, in words; empty if they do not."""
    found, plans = list[str](), dict(sorted(plans.items()))
    parts = dict.fromkeys(part for plan in plans.values() for part in plan)
    for part in parts:
        with_it = {rank: plan.get(part) for rank, plan in plans.items()}
        if None in with_it.values():
            here, gone = (
                [r for r, own in with_it.items() if own is not None],
                [r for r in with_it if with_it[r] is None],
            )
            found.append(f"{part} is on {_ranks(here)} and not on {_ranks(gone)}")
            continue
        for key in dict.fromkeys(key for own in with_it.values() for key in own or {}):
            by_value: dict[str, list[int]] = {}
            for rank, own in with_it.items():
                by_value.setdefault((own or {}).get(key, "absent"), []).append(rank)
            if len(by_value) > 1:
                found.append(f"{part}: {key} is " + " and ".join(_said(v, r) for v, r in by_value.items()))
    return "; ".join(found[:3]) + (f" (and {len(found) - 3} more differences)" if len(found) > 3 else "")


def _said(value: str, ranks: Sequence[int]) -> str:
    shown = value if len(value) <= 120 else f"{value[:117]}…"
    return f"{shown} on {_ranks(ranks)}"


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {listed(map(str, sorted(ranks)), 8)}"


def _store() -> Store | None:
    """The store of the process group, if there is one of several ranks."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    store: Store | None = _torch.default_store() if several else None
    return store


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
    """Signs that tell replicas: for some of the parameters one each, empty where there is none."""
    named = sorted((name, p) for group in groups for name, p in zip(names_of(group), group["params"], strict=True))
    moved = [p for _, p in named if p.grad is not None]
    return [_sign(p) for p in moved[:: max(1, len(moved) // _LOOKED_AT)]]


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


def _polls() -> Iterator[None]:
    """Moments at which to look again, until `PATIENCE` is over."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        yield
        time.sleep(0.02)
