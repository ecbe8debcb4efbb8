"""Who owns a parameter: exactly one optimizer if it trains, none if it does not, and it is the model's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from groupwise._spelling import counted
from groupwise.audit.checks.check import Check
from groupwise.audit.checks.shared import shared
from groupwise.audit.checks.stale import pairs
from groupwise.audit.finding import Finding
from groupwise.audit.inspected import Program, names
from groupwise.audit.naming import gathered
from groupwise.errors import listed
from groupwise.select import ParameterInfo


def _unowned(program: Program) -> Iterator[Finding]:
    elsewhere = {id(info) for info in shared(program)} | {id(info) for info, _ in pairs(program)}
    reached = program.reached
    idle = {id(i) for i in program.unowned if reached is not None and id(i.parameter) not in reached}
    lost = [info for info in program.unowned if id(info) not in elsewhere | idle]
    if not lost:
        return
    verb = "get gradients and" if reached is not None else "are trainable and"
    yield Finding(
        "unowned", "error", names(lost),
        f"no optimizer owns {program.brief(lost)}: they {verb} never change",
        f"{_adding(program, lost)}; or say that they stay as they are: requires_grad_(False)",
    )  # fmt: skip


def _adding(program: Program, lost: list[ParameterInfo]) -> str:
    parts = gathered(names(lost), names(program.parameters))
    optimizer = program.optimizers[0].name if len(program.optimizers) == 1 else "optimizer"
    if len(parts) > 1:
        return "build the optimizer from model.parameters(), or from every part"
    part, held = parts[0]
    dotted = all(word.isidentifier() for word in part.split("."))
    if held == [part]:
        params = f"[model.{part}]" if dotted else f'[model.get_parameter("{part}")]'
    else:
        module = f"model.{part}" if dotted else f'model.get_submodule("{part}")' if part else "model"
        params = f"{module}.parameters()"
    return f'{optimizer}.add_param_group({{"params": {params}}})'


def _twice(program: Program) -> Iterator[Finding]:
    shares: dict[tuple[str, ...], list[ParameterInfo]] = {}
    for info in program.parameters:
        groups = program.owners.get(id(info.parameter), ())
        if len(groups) > 1:
            where = [f"{group.optimizer} ({group.label})" for group in groups]
            shares.setdefault(tuple(dict.fromkeys(where)), []).append(info)
    for owners, infos in shares.items():
        yield Finding(
            "owned-twice", "error", names(infos),
            f"{program.brief(infos)} stand in {' and in '.join(owners)}: every gradient moves them more than once, "
            "each time by another optimizer's momentum",
            "leave each parameter to one optimizer; where two take turns on purpose, audit them one at a time",
        )  # fmt: skip


def _frozen(program: Program) -> Iterator[Finding]:
    held = [i for i in program.parameters if not i.requires_grad and _owned_unawares(program, i)]
    moving = [info for info in held if info.parameter.grad is not None]
    resting = [info for info in held if info.parameter.grad is None]
    if moving:
        yield Finding(
            "frozen-owned", "warning", names(moving),
            f"{program.brief(moving)} are frozen but still hold a gradient, so that every step moves them: "
            "requires_grad stops new gradients, not old ones",
            "clear what is left there: for p in frozen: p.grad = None",
        )  # fmt: skip
    if resting:
        yield Finding(
            "frozen-owned", "note", names(resting),
            f"{program.brief(resting)} are frozen and in an optimizer, which passes over them",
            "give the optimizer what trains: [p for p in model.parameters() if p.requires_grad]",
        )  # fmt: skip


def _owned_unawares(program: Program, info: ParameterInfo) -> bool:
    """Whether a group holds it that does not say of itself that it is frozen."""
    return any(group.settings.get("frozen") is not True for group in program.owners.get(id(info.parameter), ()))


def _outside(program: Program) -> Iterator[Finding]:
    twins = {id(tensor) for _, tensor in pairs(program)}
    for owner in program.optimizers:
        foreign = [t for t in owner.tensors if id(t) not in program.by_tensor and id(t) not in twins]
        if foreign:
            shapes = listed((str(tuple(tensor.shape)) for tensor in foreign), limit=3)
            yield Finding(
                "outside", "note", (),
                f"{owner} also holds {counted(len(foreign), 'tensor')} that the model does not have: {shapes}",
                'if they are another network\'s, audit both: audit({"generator": g, "critic": c}, …)',
            )  # fmt: skip


OWNERSHIP: Iterable[Check] = (
    Check(
        "unowned", "error", (), "trainable parameters that no optimizer owns, as a trunk beside a list of heads",
        "they keep their initial values, the loss goes down all the same, on what is left",
        "`optimizer.add_param_group(…)`, or `requires_grad_(False)` if that is meant", _unowned,
    ),
    Check(
        "owned-twice", "error", (), "parameters in two optimizers, or twice in one",
        "each of them steps on the same gradient; it looks like a larger learning rate",
        "leave each parameter to one optimizer", _twice,
    ),
    Check(
        "frozen-owned", "warning", (), "frozen parameters in an optimizer; a warning if they still hold a gradient",
        "an optimizer looks at `.grad`, not at `requires_grad`: what is left there moves them, and so does decay",
        "`p.grad = None`; give the optimizer what trains", _frozen,
    ),
    Check(
        "outside", "note", (), "tensors in an optimizer that are not in the model",
        "another network, a loss with parameters of its own, or a model that was not given whole",
        "give audit all networks, by name", _outside,
    ),
)  # fmt: skip
