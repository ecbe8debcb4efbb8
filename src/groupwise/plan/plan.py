"""A plan: an ordered list of rules, a clip over everything, and named values.

A plan is a value, independent of any model; `resolve` applies it to one. What that takes, and what reads and writes
files, is imported when it is called.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from groupwise import _adopting
from groupwise._misuse import explained
from groupwise._pickling import Public, Reduced
from groupwise._spelling import counted, shown
from groupwise._warning import warn
from groupwise.errors import PlanError
from groupwise.plan.algorithm import Algorithm
from groupwise.plan.clip import Clip
from groupwise.plan.outcomes import text_of
from groupwise.plan.parts import Parts, checked_parts
from groupwise.plan.rule import Rule
from groupwise.plan.stated_depth import checked_depth
from groupwise.schedules import Schedule
from groupwise.select import ParameterInfo

if TYPE_CHECKING:
    from groupwise.plan.resolution import Resolution


@dataclass(frozen=True, init=False, repr=False)
class Plan:
    """An ordered list of rules.

    Args:
        rules: at least one `Rule`; later ones have the last word.
        clip: one more clip scope, over everything that a step updates, applied after the rules' own.
        values: schedules that no parameter owns, by name; read at `scheduler.values[name]`.
        balance: the `[balance]` table of a plan file as plain data; the balancer reads it.
        depth: levels for `layer_decay`, `unfreeze_down` and `depth(…)`, by glob, 0 being the input: of a parameter that
            several match the last one's counts, and what none matches keeps its own.
        parts: how parameters that hold several matrices are taken apart before the rules meet them.

    Raises:
        PlanError: no rule, or something that is not what it should be.
    """

    rules: tuple[Rule, ...]
    clip: Clip | None
    values: Mapping[str, Schedule]
    balance: Mapping[str, Any] | None
    depth: Mapping[str, int]
    parts: tuple[Parts, ...]

    @explained(
        PlanError,
        "Plan",
        dict.fromkeys(("clip_norm", "max_norm", "clipnorm", "grad_clip"), "say clip=clip_norm(…)"),
        "give the rules in one list: Plan([Rule(…), Rule(…)])",
    )
    def __init__(
        self,
        rules: Iterable[Rule],
        clip: Clip | None = None,
        values: Mapping[str, Schedule] | None = None,
        balance: Mapping[str, Any] | None = None,
        depth: Mapping[str, int] | None = None,
        parts: Iterable[Parts] | None = None,
    ) -> None:
        tables: dict[str, object] = {"values": values, "balance": balance}
        for name, table in tables.items():
            if table is not None and not isinstance(table, Mapping):
                way_out = "" if name == "values" else "; in Python a method goes into the loop: Balancer(PCGrad())"
                raise PlanError(f"{name} is a mapping, not {shown(table)}{way_out}")
        fields = {
            "rules": _rules(rules),
            "clip": clip,
            "values": MappingProxyType(dict(values or {})),
            "balance": None if balance is None else MappingProxyType(dict(balance)),
            "depth": MappingProxyType(checked_depth({} if depth is None else depth)),
            "parts": checked_parts(parts),
        }
        if not (clip is None or isinstance(clip, Clip)):
            raise PlanError(f"clip must be clip_norm(…), clip_value(…) or clip_adaptive(…), not {shown(clip)}")
        if not fields["rules"]:
            raise PlanError('a plan needs at least one rule, such as Rule("*", optimizer="AdamW", lr=1e-3)')
        for name, value in (values or {}).items():
            if not isinstance(value, Schedule):
                raise PlanError(
                    f"values[{shown(name)}] must be a schedule, such as cosine(0.996, end=1.0), not {shown(value)}"
                )
        for name, field in fields.items():
            object.__setattr__(self, name, field)

    def __add__(self, more: Sequence[Rule] | Plan) -> Plan:
        """The plan with more rules after its own; of another plan also what else it states, which takes precedence."""
        if not isinstance(more, Plan):
            return Plan([*self.rules, *_rules(more)], self.clip, self.values, self.balance, self.depth, self.parts)
        return Plan(
            [*self.rules, *more.rules],
            more.clip or self.clip,
            {**self.values, **more.values},
            self.balance if more.balance is None else more.balance,
            {**self.depth, **more.depth},
            [*self.parts, *more.parts],
        )

    def __hash__(self) -> int:
        return hash((self.rules, self.clip, frozenset(self.values), self.parts))

    def __repr__(self) -> str:
        labels = ", ".join(repr(rule.label) for rule in self.rules)
        clip = f"; clip {self.clip}" if self.clip else ""
        values = f"; values {', '.join(self.values)}" if self.values else ""
        parts = f"; parts {', '.join(str(own.match) for own in self.parts)}" if self.parts else ""
        return f"Plan({counted(len(self.rules), 'rule')}: {labels}{clip}{values}{parts})"

    def _repr_html_(self) -> str:
        from groupwise import _html

        declared = [(rule, "; ".join(f"{k}={text_of(v)}" for k, v in rule.declarations.items())) for rule in self.rules]
        rows = [(rule.label, str(rule.match), text) for rule, text in declared]
        return _html.table(("rule", "matches", "declares"), rows, below=[repr(self)])

    def __reduce__(self) -> Reduced:
        values = dict(self.values)
        balance = None if self.balance is None else dict(self.balance)
        return Public("groupwise.plan:Plan"), (self.rules, self.clip, values, balance, dict(self.depth), self.parts)

    @classmethod
    def load(cls, path: str | os.PathLike[str], allow: Sequence[str] = ()) -> Plan:
        """Read a plan file: TOML, YAML or JSON by its suffix.

        Bare optimizer names are those of `torch.optim`; `"package.module:Class"` needs its package in `allow`. Nothing
        is imported or run here. Raises `PlanError` naming the file and the place in it.
        """
        from groupwise.plan import plan_file

        return cls(**plan_file.load(path, allow))

    @classmethod
    def from_optimizer(
        cls, model: Any, optimizer: Any, schedulers: Any = (), schedulers_step: str = "update", example: Any = None
    ) -> Plan:
        """The shortest plan found that equals an existing program of PyTorch: groups, values, schedules with a twin.

        `groupwise.adopt.adopt` reads the program, and says as well what it could not carry over; here that is one
        `GroupwiseWarning`. Nothing in the program is changed.

        Args:
            model: a module, or a mapping of names to modules or parameters.
            optimizer: an optimizer of torch, several, or a mapping of names to them, which become one plan.
            schedulers: likewise.
            schedulers_step: what the program calls `scheduler.step()` after, "update" or "epoch".
            example: what the model is run on once, to see roles and depth in place of guessing them.

        Raises:
            GroupwiseError: what `adopt` raises.
        """
        found = _adopting.read(model, optimizer, schedulers, schedulers_step, example)
        if found.lost:
            warn(f"not carried over: {'; '.join(found.lost)}")
        return cls(found.plan.rules)

    @classmethod
    def loads(cls, text: str, allow: Sequence[str] = (), format: str = "toml") -> Plan:
        """Read a plan from text in `format` ("toml", "yaml" or "json"). Raises `PlanError`."""
        from groupwise.plan import plan_file

        return cls(**plan_file.loads(text, allow, format))

    def dumps(self) -> str:
        """The plan as TOML, such that `Plan.loads(plan.dumps()) == plan`. `PlanError` for Python-only parts."""
        from groupwise.plan import plan_file

        return plan_file.dumps(self.rules, self.clip, self.values, self.balance, self.depth, self.parts)

    def dump(self, path: str | os.PathLike[str]) -> None:
        """Write `dumps()` to a `.toml` file, whole or not at all.

        A symbolic link is followed; a file that is replaced keeps its permissions.

        Raises:
            PlanError: Python-only parts, another suffix, no directory, or no regular file at `path`.
            OSError: the file cannot be written, as on a full disk; it is as it was.
        """
        from groupwise.plan import plan_file

        plan_file.dump(self.dumps(), path)

    def replace(self, label: str, changes: Mapping[str, object] | None = None, /, **hyperparameters: object) -> Plan:
        """The plan with other values in the rule of that label: what a sweep changes between runs.

        Args:
            label: the rule's label, given or by default; one rule has it.
            changes: by address: a field ("lr", "trainable", "clip", "match"), or a place inside its form in a file,
                "lr.cosine", "betas.1", "clip.norm". A field that the rule does not declare yet is added.
            **hyperparameters: fields whose name is an address by itself.

        Raises:
            PlanError: no rule, or several, with that label; no such place; or a value that cannot stand there.

        Example:
            >>> from groupwise.schedules import cosine
            >>> plan = Plan([Rule("*", label="base", optimizer="AdamW", lr=cosine(1e-3, warmup="5%"))])
            >>> plan.replace("base", {"lr.cosine": 3e-4}, weight_decay=0.1).rules[0].declarations["lr"]
            cosine(3e-4, warmup=5%)
        """
        from groupwise.plan.replacing import replaced

        rules = replaced(self.rules, label, {**(changes or {}), **hyperparameters})
        balance = None if self.balance is None else dict(self.balance)
        return Plan(rules, self.clip, dict(self.values), balance, self.depth, self.parts)

    def resolve(self, parameters: Sequence[ParameterInfo], algorithms: Mapping[str, Algorithm]) -> Resolution:
        """Apply the plan to parameters (`parameters_of(model)`).

        `algorithms` maps the name of each algorithm to what its constructor takes; whoever knows the classes supplies
        it. Raises `ResolutionError` or `PlanError` where laws of the cascade are broken, all mistakes in one.
        """
        from groupwise.plan.resolving import resolution_of

        return resolution_of(self.rules, self.clip, self.values, self.depth, self.parts, parameters, algorithms)


def _rules(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    if not isinstance(rules, list | tuple):
        raise PlanError(f"a plan is made of a list of rules, not {type(rules).__name__}: Plan([Rule(…), …])")
    for rule in rules:
        if not isinstance(rule, Rule):
            raise PlanError(f"a plan is made of rules: write Rule(match, …) instead of {shown(rule)}")
    return tuple(rules)
