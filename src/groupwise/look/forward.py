"""One forward pass under watch: what is recorded of each operation, and what is kept from happening.

Two modes of torch see everything that runs in this thread, frozen parts, `no_grad` teachers, checkpoints, custom
functions and hidden lists included, which autograd's graph does not. No operation writes into memory that the run did
not make: parameters, buffers and inputs are copied when they are written to, and the copy is what is read from then on.

On the meta device everything that depends on a parameter has a shape and no values, and the rest (token ids, masks,
positions) is computed as ever, so decisions that depend on the input alone are true ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from groupwise._torch import DispatchMode, backward_pass
from groupwise.look import answers
from groupwise.look.flow import Flow
from groupwise.look.operation import Given, Operation
from groupwise.look.operations import observe
from groupwise.look.provenance import Provenance, Value, joined, memory_key, offset_of

_TAKE_DATA_FIRST = {F.linear: 1, F.multi_head_attention_forward: 3, F.bilinear: 2}
"""Functions of torch by how many of their first arguments are data."""

_LEAVE_TORCH = {torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist, torch.Tensor.data_ptr}
"""Methods after which others may compute with the values of a tensor."""

_HIDDEN_WRITES = {"running_mean", "running_var"}
"""Arguments that batch norms write to without saying so."""


@final
@dataclass(eq=False)
class Watched:
    """The state of one run.

    Args:
        flow: what is recorded of each parameter.
        provenance: where each tensor comes from.
        meta: whether what depends on parameters has no values.
        by_value: whether an answer was asked that depends on such values.
        operation: the operation that runs, or ran last.
    """

    flow: Flow
    provenance: Provenance
    meta: bool
    by_value: bool = False
    operation: str = ""
    copies: dict[int, Any] = field(default_factory=dict)
    data: set[tuple[int, int]] = field(default_factory=set)
    asked: int = 0

    def value(self, tensor: torch.Tensor) -> Value:
        """What is known of a tensor; what stands as data in the function that runs is data."""
        found = self.provenance.of(tensor)
        if found.forms and self.data and _place(tensor) in self.data:
            self.flow.operation = self.operation
            self.flow.use([i for i, how in found.forms if how != "statistic"], "token", Value())
            return found.as_data()
        return found


class Watching(DispatchMode):  # type: ignore[no-untyped-call]
    """Records what each operation does, and keeps it from what it must not write to."""

    def __init__(self, watched: Watched) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watched = watched

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation."""
        watched, kwargs = self._watched, dict(kwargs or {})
        watched.operation = str(func._schema.name)
        given = list(_named(func, args, kwargs))
        operands = tuple(Given(name, tensor, watched.value(tensor)) for name, tensor, _ in given)
        written = [tensor for _, tensor, is_written in given if is_written]
        result = _ran(watched, func, args, kwargs, operands, written)
        results = tuple(tensors_in(result))
        operation = Operation(watched.operation.rpartition("::")[2], operands, results or tuple(written))
        value = joined(g.value.as_data() for g in operands) if _is_backward() else observe(operation, watched.flow)
        for tensor in written:
            watched.provenance.wrote(tensor, value)
        taken = {memory_key(each.tensor) for each in operands}
        for tensor in results:
            if watched.provenance.is_made(tensor) or memory_key(tensor) not in taken:
                watched.provenance.note(tensor, value)
        return _as_returned(func, result, written)


class Marking(TorchFunctionMode):
    """Marks what functions of torch take as data, which products alone do not tell from what they multiply by."""

    def __init__(self, watched: Watched) -> None:
        super().__init__()
        self._watched = watched

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call one function."""
        if func in _LEAVE_TORCH and isinstance(args[0], torch.Tensor):
            self._watched.provenance.leave(args[0])
        count = _TAKE_DATA_FIRST.get(func, 0) if callable(func) and getattr(func, "__hash__", None) else 0
        marked = {_place(tensor) for tensor in args[:count] if isinstance(tensor, torch.Tensor)}
        new = marked - self._watched.data
        self._watched.data |= new
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._watched.data -= new


def tensors_in(tree: Any) -> Iterator[torch.Tensor]:
    """The tensors in what an operation takes or returns."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from tensors_in(part)


def _is_backward() -> bool:
    return backward_pass() is not None


def _place(tensor: torch.Tensor) -> tuple[int, int]:
    return memory_key(tensor), offset_of(tensor)


def _named(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Each tensor that an operation takes, with its argument's name, and whether it is written to."""
    for i, argument in enumerate(func._schema.arguments):
        given = args[i] if i < len(args) else kwargs.get(argument.name)
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        is_written = is_written or argument.name in _HIDDEN_WRITES
        for tensor in tensors_in(given):
            yield argument.name, tensor, is_written


def _ran(
    watched: Watched, func: Any, args: Sequence[Any], kwargs: dict[str, Any], operands: Sequence[Given],
    written: Sequence[torch.Tensor],
) -> Any:  # fmt: skip
    """The result of an operation on what may be used in place of its arguments."""
    emptied = watched.meta and _loses_values(func, operands, written, watched)
    for tensor in written:
        if emptied or not watched.provenance.is_made(tensor):
            _copy(watched, tensor, emptied)
    taken = _mapped(args, watched, emptied), _mapped(kwargs, watched, emptied)
    if watched.meta:
        return answers.answered(watched, func, *taken)
    watched.by_value = watched.by_value or (
        func._schema.name in answers.BY_VALUE and any(given.value.is_data and given.value.sources for given in operands)
    )
    return func(*taken[0], **taken[1])


def _loses_values(func: Any, operands: Sequence[Given], written: Sequence[torch.Tensor], watched: Watched) -> bool:
    """Whether an operation is to run without values: it depends on parameters, and is no mere view."""
    if any(given.tensor.is_meta for given in operands) or any(memory_key(t) in watched.copies for t in written):
        return True
    if any(memory_key(given.tensor) in watched.copies for given in operands):
        return True
    if any(given.value.forms or given.value.sources for given in operands):
        return not _is_view(func)
    return False


def _is_view(func: Any) -> bool:
    infos = [returned.alias_info for returned in func._schema.returns]
    return bool(infos) and all(info is not None and not info.is_write for info in infos)


def _mapped(tree: Any, watched: Watched, emptied: bool) -> Any:
    """Arguments with copies in place of what was written to, and without values where they are to have none."""
    if isinstance(tree, torch.Tensor):
        copy = watched.copies.get(memory_key(tree))
        if copy is not None:
            return _on(copy, tree)
        return _without_values(tree) if emptied and not tree.is_meta else tree
    if isinstance(tree, list | tuple):
        return type(tree)([_mapped(part, watched, emptied) for part in tree]) if tree else tree
    if isinstance(tree, dict):
        return {key: _mapped(part, watched, emptied) for key, part in tree.items()}
    return tree


def _without_values(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout is not torch.strided:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _copy(watched: Watched, tensor: torch.Tensor, emptied: bool) -> None:
    """Let whatever is written to a tensor's memory go to a copy of it."""
    key = memory_key(tensor)
    if key in watched.copies or (tensor.is_meta and watched.provenance.is_made(tensor)):
        return
    storage = tensor.untyped_storage()
    if emptied or tensor.is_meta:
        watched.copies[key] = torch.UntypedStorage(storage.nbytes(), device="meta")  # type: ignore[no-untyped-call]
    else:
        watched.copies[key] = storage.clone()  # type: ignore[no-untyped-call]


def _on(storage: Any, tensor: torch.Tensor) -> torch.Tensor:
    """The view that `tensor` is, on other memory."""
    device = storage.device
    with torch.no_grad():
        empty = torch.empty(0, dtype=tensor.dtype, device=device)
        return empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def _as_returned(func: Any, result: Any, written: Sequence[torch.Tensor]) -> Any:
    """What an operation returns: where it writes, the tensor that it was given."""
    infos = [returned.alias_info for returned in func._schema.returns]
    if not written or not any(info is not None and info.is_write for info in infos):
        return result
    if isinstance(result, torch.Tensor):
        return written[0]
    given = iter(written)
    parts = zip(result, infos, strict=False)
    return type(result)([next(given) if info is not None and info.is_write else part for part, info in parts])
