"""From what the caller has to a description: a model, its optimizers, its schedulers, its losses.

Wrappers show the live groups of what they wrap (Accelerate's optimizer, Lightning's, the view of one network), so two
objects are the same optimizer if they share a group dict, and a scheduler drives whatever holds the groups it writes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch

from groupwise._shards import is_sharded
from groupwise._spelling import shown
from groupwise._torch import runs_step_hooks
from groupwise.audit.graph import Reach, reach_of
from groupwise.audit.inspected import Driver, Group, Owner, number_of, settings_of
from groupwise.audit.running_statistics import Statistics
from groupwise.errors import AuditError, SelectorError, listed
from groupwise.look import Example, parameters_of
from groupwise.look.untouched import untouched
from groupwise.select import ParameterInfo

Model: TypeAlias = "torch.nn.Module | Mapping[str, torch.nn.Module | torch.Tensor]"
Losses: TypeAlias = (
    "torch.Tensor | Mapping[str, torch.Tensor] | Callable[..., torch.Tensor | Mapping[str, torch.Tensor]]"
)
OneOrMore: TypeAlias = "Any | Iterable[Any] | Mapping[str, Any]"
"""One optimizer (or scheduler), several, or several by name."""


def described_parameters(model: Model, example: Example | None = None) -> tuple[ParameterInfo, ...]:
    """The model's parameters. Raises `AuditError` for what is no model, or has none."""
    try:
        infos = parameters_of(model, example=example)
    except SelectorError as error:
        raise AuditError(f"model: {error}") from None
    if not infos:
        raise AuditError("the model has no parameters, so there is nothing to audit")
    return infos


def named(given: OneOrMore, what: str) -> dict[str, Any]:
    """Optimizers or schedulers by name: the keys of a mapping, else `optimizer`, or `optimizers[0]` and so on."""
    if isinstance(given, Mapping):
        return {str(name): each for name, each in given.items()}
    if _is_one(given, what):
        return {what: given}
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise AuditError(f"{what}s: {_said(given)} is no {what}; give one, a list of them, or a mapping of names")
    several = list(given)
    return {what: several[0]} if len(several) == 1 else {f"{what}s[{i}]": each for i, each in enumerate(several)}


def described_optimizers(optimizers: Mapping[str, Any]) -> tuple[Owner, ...]:
    """Each optimizer with its groups. Raises `AuditError` if there is none, or one without groups."""
    if not optimizers:
        raise AuditError("there is no optimizer; give audit(model, optimizer), or a list or a mapping of them")
    return tuple(_owner(name, optimizer) for name, optimizer in optimizers.items())


def groups_of(optimizer: Any) -> list[dict[str, Any]]:
    """The live groups of whatever has any; none of what does not look like an optimizer."""
    groups = getattr(optimizer, "param_groups", None)
    whole = isinstance(groups, list) and all(isinstance(group, dict) and "params" in group for group in groups)
    return groups if whole and isinstance(groups, list) else []


def followed(name: str, optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer whose steps are those of `optimizer`: the inmost one, over the same groups, where it is wrapped.

    Raises `AuditError` if its steps run no hooks.
    """
    found = inmost(optimizer)
    if found is None:
        raise AuditError(
            f"{name}: the step of {_said(optimizer)} runs no hooks of torch, so it cannot be watched; "
            "audit.audit(…) looks at it as it is"
        )
    return found


def inmost(optimizer: Any) -> torch.optim.Optimizer | None:
    """The optimizer over the same groups that is wrapped in `optimizer`, or itself; None if its steps run no hooks."""
    return _inmost(optimizer, groups_of(optimizer), set())


def _inmost(optimizer: Any, groups: list[dict[str, Any]], visited: set[int]) -> torch.optim.Optimizer | None:
    visited.add(id(optimizer))
    held = [each for each in getattr(optimizer, "__dict__", {}).values() if isinstance(each, torch.optim.Optimizer)]
    alike = [each for each in held if id(each) not in visited and same(groups_of(each), groups)]
    found = next((inner for each in alike if (inner := _inmost(each, groups, visited)) is not None), None)
    if found is not None:
        return found
    return optimizer if isinstance(optimizer, torch.optim.Optimizer) and runs_step_hooks(optimizer) else None


def described_schedulers(schedulers: Mapping[str, Any], optimizers: Mapping[str, Any]) -> tuple[Driver, ...]:
    """Each scheduler with what it drives. Raises `AuditError` for what holds no optimizer."""
    return tuple(_driver(name, scheduler, optimizers) for name, scheduler in schedulers.items())


def bound(scheduler: Any) -> list[dict[str, Any]]:
    """The live groups that a scheduler writes; Accelerate's and Lightning's wrappers have the scheduler inside."""
    inner = getattr(scheduler, "scheduler", None)
    return groups_of(getattr(scheduler, "optimizer", None)) or (bound(inner) if inner is not None else [])


def last_rates(scheduler: Any) -> tuple[float, ...]:
    """The rates that a scheduler last wrote, by group; empty where it does not say."""
    return tuple(number_of(lr) for lr in getattr(_inside(scheduler), "_last_lr", None) or ())


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether two lists of live groups are of one optimizer."""
    return bool({id(group) for group in one} & {id(group) for group in other})


def described_reach(
    losses: Losses | None, batch: object, model: Model, infos: Iterable[ParameterInfo]
) -> tuple[Reach | None, tuple[str, ...]]:
    """What each loss reaches; a function is called for its losses, and leaves nothing behind.

    With it the frozen norms whose running statistics that call moved.

    Raises `AuditError` for losses that are no scalars, and for a function that wants a batch and gets none.
    """
    if losses is None:
        if batch is not None:
            raise AuditError("batch is what the function `losses` is called with; give losses, too")
        return None, ()
    tensors = [info.parameter for info in infos]
    if isinstance(losses, torch.Tensor | Mapping) or not callable(losses):
        if batch is not None:
            raise AuditError("batch is for a function `losses`; these losses are computed already: leave batch out")
        return _reach(losses, tensors), ()
    if batch is None and _wants_argument(losses):
        raise AuditError("losses is a function of a batch: give batch=, too")
    parts = model.values() if isinstance(model, Mapping) else [model]
    modules = [part for part in parts if isinstance(part, torch.nn.Module)]
    with untouched(modules, tensors) as changed, torch.enable_grad():
        statistics = Statistics(model)
        reach = _reach(losses() if batch is None else losses(batch), tensors)
        if changed():
            raise AuditError("losses changed the model's parameters; it must compute the losses and do no more")
        return reach, statistics.moved()


def _reach(losses: object, tensors: list[torch.Tensor]) -> Reach:
    reach = reach_of(_by_task(losses))
    if any(map(is_sharded, tensors)):
        return Reach(reach.tasks, (), {}, "the model is sharded, and autograd knows only the gathered parameters")
    return reach


def _by_task(losses: object) -> dict[str, torch.Tensor]:
    tasks: dict[object, Any] = dict(losses) if isinstance(losses, Mapping) else {"loss": losses}
    if not tasks:
        raise AuditError("losses is an empty mapping; give a tensor, or a mapping of task to tensor")
    for task, loss in tasks.items():
        if not isinstance(loss, torch.Tensor):
            raise AuditError(
                f"losses: {task!r} is {_said(loss)}, not a tensor; give the loss before .item(), "
                "or a mapping of task to tensor"
            )
        if loss.numel() != 1:
            raise AuditError(f"losses: {task!r} has shape {tuple(loss.shape)}; a loss is one number: reduce it first")
    return {str(task): loss for task, loss in tasks.items()}


def _wants_argument(function: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.kind in positional and p.default is p.empty for p in parameters)


def _said(given: object) -> str:
    """What was given, on one line: modules and optimizers print themselves on many."""
    if isinstance(given, type):
        return f"the class {given.__name__}"
    plain = given is None or isinstance(given, str | int | float | list | tuple | dict)
    return " ".join(shown(given).split()) if plain else f"this {type(given).__name__}"


def _is_one(given: object, what: str) -> bool:
    return bool(groups_of(given)) if what == "optimizer" else bool(bound(given))


def _owner(name: str, optimizer: Any) -> Owner:
    groups = groups_of(optimizer)
    if not groups:
        raise AuditError(
            f"{name}: {_said(optimizer)} is no optimizer: it has no list of param_groups; "
            "give audit(model, optimizers, schedulers)"
        )
    described = tuple(_group(name, i, optimizer, group) for i, group in enumerate(groups))
    return Owner(name, type(optimizer).__name__, described, _clipped(inmost(optimizer), groups))


def _clipped(optimizer: Any, groups: Iterable[Mapping[str, Any]]) -> frozenset[int]:
    """The tensors that an optimizer clips by itself, as a plan has it."""
    resolution = getattr(optimizer, "resolution", None)
    scopes = {group.name for group in getattr(resolution, "groups", ()) if group.clip is not None}
    whole = getattr(resolution, "clip", None) is not None
    return frozenset(id(p) for group in groups if whole or group.get("name") in scopes for p in group["params"])


def _group(name: str, index: int, optimizer: Any, group: Mapping[str, Any]) -> Group:
    algorithm = str(group.get("algorithm") or "").rpartition(":")[2]
    kinds = (algorithm,) if algorithm else tuple(base.__name__ for base in type(optimizer).__mro__)
    params = group["params"]
    tensors = (params,) if isinstance(params, torch.Tensor) else tuple(params)
    return Group(name, index, kinds, tensors, tuple(group.get("param_names", ())), settings_of(group))


def _driver(name: str, scheduler: Any, optimizers: Mapping[str, Any]) -> Driver:
    groups = bound(scheduler)
    if not groups:
        raise AuditError(
            f"{name}: {_said(scheduler)} is no scheduler: it has no .optimizer with param_groups; "
            f"the optimizers given are {listed(optimizers)}"
        )
    drives = next((key for key, optimizer in optimizers.items() if same(groups_of(optimizer), groups)), "")
    kinds = tuple(base.__name__ for base in type(_inside(scheduler)).__mro__)
    tensors = tuple(t for group in groups for t in group["params"])
    own = type(_inside(scheduler)).__module__.partition(".")[0] not in ("torch", "groupwise")
    return Driver(name, kinds, drives, tensors, last_rates(scheduler), _bases(scheduler, groups), own)


def _bases(scheduler: Any, groups: list[dict[str, Any]]) -> tuple[float, ...]:
    """The rates that a scheduler began from: as it says itself (DeepSpeed's calls them `org_lrs`), or the groups do."""
    own = vars(_inside(scheduler))
    rates = own.get("base_lrs") or own.get("org_lrs") or [group.get("initial_lr") for group in groups]
    return tuple(map(number_of, rates)) if isinstance(rates, list) and len(rates) == len(groups) else ()


def _inside(scheduler: Any) -> Any:
    return scheduler if groups_of(getattr(scheduler, "optimizer", None)) else scheduler.scheduler
