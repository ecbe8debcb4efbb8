"""The look: run the model once on an example, and say what was recorded.

First on the meta device, where nothing is computed; where that fails, on the device that the model lives on. Without
gradients, and with them if the forward asks for them. What a run skipped at random (LayerDrop) another may show.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch

from groupwise._torch import may_have_compiled
from groupwise.errors import SelectorError, within
from groupwise.look.dependence import Dependence, Parts
from groupwise.look.example import Example, Model, caller_of
from groupwise.look.flow import Flow, Record, merged
from groupwise.look.forward import Marking, Watched, Watching, tensors_in
from groupwise.look.levels import levels_of
from groupwise.look.mixtures import Mixtures, mixtures_of
from groupwise.look.provenance import Provenance, bits, memory_key, offset_of
from groupwise.look.roles import heads_of, product_of, reasons_of
from groupwise.look.sharded import refuse_sharded
from groupwise.look.untouched import untouched
from groupwise.select import Node, Usage
from groupwise.select import parameters_of as walked
from groupwise.select.walk import trees_of, unwrapped

_RUNS, _UNHELPFUL = 32, 8
"""As often at most is a model run that skips parts at random, and so often after it has shown anything new."""


def look(model: Model, example: Example) -> Usage:
    """What one forward pass of `model` on `example` shows. Raises as `parameters_of` does."""
    subject = _Subject.of(model)
    with within("example"):
        caller = caller_of(model, subject.inner, example)
        flow, where, by_value = _shown(subject, caller, example)
    return _usage(subject, flow, where, by_value)


@final
@dataclass(frozen=True, eq=False)
class _Subject:
    """A model as the look takes it: its trees, its parameters in order, where they live."""

    trees: list[tuple[str, Node]]
    tensors: tuple[torch.Tensor, ...]
    names: tuple[str, ...]
    networks: tuple[int, ...]
    tied: int
    modules: tuple[torch.nn.Module, ...]
    inner: torch.nn.Module | None

    @staticmethod
    def of(model: Model) -> _Subject:
        """Raises `SelectorError` for no model, and for a sharded one."""
        trees, infos = trees_of(model), walked(model)
        parts = tuple(model.values()) if isinstance(model, Mapping) else (model,)
        modules = tuple(part for part in parts if isinstance(part, torch.nn.Module))
        refuse_sharded(((info.name, info.parameter) for info in infos), modules)
        by_network: dict[str, int] = {}
        for i, info in enumerate(infos):
            for key in {occurrence.network for occurrence in info.occurrences}:
                by_network[key] = by_network.get(key, 0) | 1 << i
        networks = tuple(_union(by_network[occurrence.network] for occurrence in info.occurrences) for info in infos)
        return _Subject(
            trees,
            tuple(info.parameter for info in infos),
            tuple(info.name for info in infos),
            networks,
            bits(i for i, info in enumerate(infos) if len(info.occurrences) > 1),
            modules,
            None if isinstance(model, Mapping) else unwrapped(model),
        )

    @property
    def device(self) -> torch.device | None:
        """Where it lives; None if on `meta` in part, so that it cannot be run."""
        if any(tensor.is_meta for tensor in self.tensors):
            return None
        return self.tensors[0].device if self.tensors else torch.device("cpu")

    def flow(self) -> Flow:
        """New records."""
        pairs = zip(self.tensors, self.networks, strict=True)
        return Flow([Record(tuple(tensor.shape), network) for tensor, network in pairs])

    def provenance(self) -> Provenance:
        """The memory of its parameters, and of what else it holds."""
        held: dict[int, list[tuple[int, int, int]]] = {}
        for i, tensor in enumerate(self.tensors):
            held.setdefault(memory_key(tensor), []).append((offset_of(tensor), tensor.numel(), i))
        others = (tensor for module in self.modules for part in module.modules() for tensor in _held(part))
        return Provenance(held, frozenset(memory_key(tensor) for tensor in others) - held.keys())


def _held(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Buffers, and tensors that are plain attributes."""
    yield from tensors_in(list(vars(module).values()))
    yield from tensors_in(list(module._buffers.values()))


def _shown(
    subject: _Subject, caller: Callable[[torch.device | None], object], example: Example
) -> tuple[Flow, str, bool]:
    """The first way of running that works: on meta, then where the model lives."""
    lives = subject.device
    failed: list[str] = []
    for device in [torch.device("meta"), *([lives] if lives is not None else [])]:
        for with_gradients in (False, True):
            watched = Watched(subject.flow(), subject.provenance(), device.type == "meta")
            try:
                flows = _runs(subject, watched, caller, device, with_gradients)
            except Exception as error:
                failed.append(_failure(device, watched.operation, error))
                if not _wants_gradients(error):
                    break
            else:
                return merged(flows), device.type, watched.by_value
    raise SelectorError(
        f"the model cannot be run on it: {failed[-1]}. "
        + ("Build it on the CPU, a small one of its kind will do, and give a tiny real input" if lives is None else "")
        + ("Give what its forward takes" if lives is not None else "")
        + "; without example= roles and depth are guessed from names"
    )


def _failure(device: torch.device, operation: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    at = f", at {operation}" if operation else ""
    return f"on {device.type}{at}: {type(error).__name__}: {text[:300]}"


def _wants_gradients(error: Exception) -> bool:
    text = str(error)
    return any(words in text for words in ("require grad", "requires_grad", "requires grad", "grad_fn"))


def _runs(
    subject: _Subject, watched: Watched, caller: Callable[[torch.device | None], object],
    device: torch.device, with_gradients: bool,
) -> list[Flow]:  # fmt: skip
    """One run, and more while something was not reached and chance had a part in it."""
    flows: list[Flow] = []
    with untouched(subject.modules, subject.tensors, copying=False), contextlib.ExitStack() as stack:
        stack.enter_context(torch.enable_grad() if with_gradients else torch.no_grad())
        stack.enter_context(_eagerly())
        for _ in range(_RUNS):
            before = _chance()
            flows.append(_run(subject, watched, caller, device))
            if flows[-1].used.bit_count() == len(subject.tensors) or before == _chance() or _nothing_new(flows):
                break
    return flows


def _run(
    subject: _Subject, watched: Watched, caller: Callable[[torch.device | None], object], device: torch.device
) -> Flow:  # fmt: skip
    watched.flow, watched.provenance = subject.flow(), subject.provenance()
    watched.copies.clear()
    for tensor in subject.tensors:
        tensor.grad = None
    with Marking(watched), Watching(watched):
        caller(None if watched.meta else device)
    return watched.flow


def _nothing_new(flows: Sequence[Flow]) -> bool:
    """Whether the last runs show nothing that those before do not: of two that are alike one, of others many."""
    last = _UNHELPFUL if len({flow.used for flow in flows}) > 1 else 2
    before, new = flows[:-last], flows[-last:]
    return bool(before) and not any(_adds(flow, before) for flow in new)


def _adds(flow: Flow, before: Sequence[Flow]) -> bool:
    if flow.used & ~_union(earlier.used for earlier in before):
        return True
    return any(
        record.above & ~_union(earlier.records[i].above for earlier in before) for i, record in enumerate(flow.records)
    )


def _union(masks: Iterable[int]) -> int:
    """The union of sets of parameters."""
    found = 0
    for mask in masks:
        found |= mask
    return found


def _chance() -> tuple[object, ...]:
    """The state of the generators that a model may draw from."""
    return bytes(torch.get_rng_state().numpy()), random.getstate()


@contextlib.contextmanager
def _eagerly() -> Iterator[None]:
    """Compiled modules run as they are written, as long as anything has been compiled."""
    if not may_have_compiled():
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _usage(subject: _Subject, flow: Flow, where: str, by_value: bool) -> Usage:
    of = {id(tensor): i for i, tensor in enumerate(subject.tensors)}
    trains = bits(i for i, tensor in enumerate(subject.tensors) if tensor.requires_grad)
    dependence = Dependence(flow.records, of, trains, subject.tied)
    depth: dict[str, int] = {}
    inner, mixed = 0, Mixtures()
    for key, root in subject.trees:
        found, mixture = levels_of(root, dependence), mixtures_of(root, Parts(dependence))
        inner |= found.inner
        mixed = Mixtures(mixed.experts | mixture.experts, mixed.routers | mixture.routers)
        depth |= {(f"{key}.{name}" if key and name else key or name): level for name, level in found.by_name.items()}
    return _usage_of(subject.names, flow, heads_of(flow, inner), mixed, depth, where, by_value)


def _usage_of(
    names: Sequence[str], flow: Flow, heads: int, mixed: Mixtures, depth: dict[str, int], where: str, by_value: bool
) -> Usage:  # fmt: skip
    used_records = {name: i for i, (name, record) in enumerate(zip(names, flow.records, strict=True)) if record.uses}
    roles = {name: reasons_of(flow.records[i], i, heads, mixed) for name, i in used_records.items()}
    used = {name for name, record in zip(names, flow.records, strict=True) if record.first >= 0}
    return Usage(
        roles=roles,
        products={name: why for name, i in used_records.items() if (why := product_of(flow.records[i]))},
        depth=depth,
        unreached=frozenset(names) - used,
        opaque={n: r.opaque for n, r in zip(names, flow.records, strict=True) if n in used and not r.uses},
        guessed=by_value,
        where=where,
        mixtures=bool(mixed.experts),
    )
