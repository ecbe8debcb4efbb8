"""Every private name of torch that is relied upon, and what happens where another version of torch lacks it.

Nothing here is needed to be right: a name that is gone costs speed, or the recognition of something rare, never a
number. `tests/optim/test_private_names.py` takes names away and trains on.
"""

from __future__ import annotations

import functools
import inspect
import operator
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FrameType
from typing import Any, Final, TypeAlias

import torch
from torch.nn.utils import clip_grad
from torch.utils._python_dispatch import TorchDispatchMode

Check: TypeAlias = Callable[[Sequence[torch.Tensor]], bool]

_CLIPS: Final = "_clip_grads_with_norm_"
_GROUPS: Final = "_group_tensors_by_device_and_dtype"
_OPTIMIZERS: Final = sys.modules[torch.optim.Optimizer.__module__]
_CAST: Final = "_process_value_according_to_param_policy"
_MEASURES: Final = "_get_total_norm"
_SAVE_HOOKS: Final = "_optimizer_state_dict_pre_hooks", "_optimizer_state_dict_post_hooks"
_STEP_HOOKS: Final = "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"


own_parameters, own_layers = operator.attrgetter("_parameters"), operator.attrgetter("_modules")
"""What a module holds itself, by name. Lacking: an `AttributeError`, which means that nothing is known of it."""


def private(*path: str) -> Any:
    """What is at `path` below `torch`, or None."""
    found: Any = torch
    for name in path:
        found = getattr(found, name, None)
    return found


def fused_devices() -> frozenset[str]:
    """The device types that torch has fused optimizer kernels for. Lacking: none, so that the default kernels run."""
    supported = private("utils", "_foreach_utils", "_get_fused_kernels_supported_devices")
    return frozenset() if supported is None else frozenset(supported())


def layout_check(tensors: Sequence[torch.Tensor]) -> Check:
    """A check that as many other tensors have, one by one, the type, shape, strides, dtype and device of these.

    The check holds no tensor. It is the compiled guard of `torch.compile`, which takes a fifth of the time of reading
    four attributes of each tensor. It is the same one for the same layouts (gradients, each of the moments), since its
    own memory takes as long to come by as theirs. Lacking: the attributes are read.
    """
    layouts = (*map(_layout, tensors),)
    guards = private("_C", "_dynamo", "guards", "TensorGuards")
    if guards is None:
        return lambda others: (*map(_layout, others),) == layouts
    known = _CHECKS.get(layouts)
    if known is not None and known(tensors):
        return known
    check, count = guards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None).check, len(tensors)
    made = _CHECKS[layouts] = lambda others: len(others) == count and bool(check(*others))
    return made


_CHECKS: Final[weakref.WeakValueDictionary[tuple[object, ...], Check]] = weakref.WeakValueDictionary()
"""By layouts, the checks that are in use."""


def _layout(t: object) -> tuple[object, ...]:
    if not isinstance(t, torch.Tensor):
        return ()
    strides = t.stride() if t.layout == torch.strided else None
    return type(t), t.shape, strides, t.dtype, t.device, t.layout, t.is_neg()


def without_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """An optimizer class's `step` without the wrapper that torch puts around it to fire the step hooks.

    The wrapper is known by its code. Lacking: by the attribute `hooked` that torch leaves on it. The first use of
    `torch.compile` wraps some steps once more (SparseAdam's, LBFGS's), so that they are not traced; so is what is
    found in them.
    """
    if _is_untraced(step):
        if step not in _UNTRACED_STEPS:
            inside = step._torchdynamo_orig_callable  # type: ignore[attr-defined]
            untraced: Callable[..., Any] = torch.compiler.disable(without_hooks(inside))  # type: ignore[no-untyped-call]
            _UNTRACED_STEPS[step] = untraced
        return _UNTRACED_STEPS[step]
    known = _HOOKED_STEP
    wrapped = getattr(step, "hooked", False) if known is None else getattr(step, "__code__", None) is known
    inner: Callable[..., Any] = step.__wrapped__ if wrapped else step  # type: ignore[attr-defined]
    return inner


_UNTRACED_STEPS: Final[dict[Callable[..., Any], Callable[..., Any]]] = {}
"""By the step that `torch.compiler.disable` has wrapped: the same without hooks. One for each class at most."""


def parts_of_step(cls: type[torch.optim.Optimizer]) -> tuple[object, ...]:
    """What the step of SGD, Adam or AdamW (Adam's) looks up on its way to the kernel. Lacking: None in its place."""
    module, function = _STEP_FUNCTIONS[cls]
    looked_up = (cls, "_init_group"), (module, function), (module, f"_fused_{function}")
    parts = [getattr(owner, name, None) for owner, name in looked_up]
    return (*[getattr(part, "_torchdynamo_orig_callable", part) for part in parts],)  # torch.compile wraps some


_STEP_FUNCTIONS: Final[dict[type[torch.optim.Optimizer], tuple[object, str]]] = {
    torch.optim.SGD: (sys.modules.get(torch.optim.SGD.__module__), "sgd"),
    torch.optim.Adam: (sys.modules.get(torch.optim.Adam.__module__), "adam"),
    torch.optim.AdamW: (sys.modules.get(torch.optim.Adam.__module__), "adam"),
}


def without_dynamo(cls: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """A subclass whose building and stepping do not import torch._dynamo, which takes seconds, where torch's own do.

    They import it to keep themselves out of a trace. Lacking: the class itself, and torch imports it.
    """
    adds, step = torch.optim.Optimizer.add_param_group, without_hooks(cls.step)
    body: dict[str, Any] = {}
    if cls.add_param_group is adds:
        body["add_param_group"] = inspect.unwrap(adds)
    if getattr(step, "__code__", None) is _differentiable_step_code():
        body["step"] = _without_graph_breaks(step.__wrapped__)  # type: ignore[attr-defined]
    return type(cls.__name__, (cls,), {"__module__": cls.__module__, "__qualname__": cls.__qualname__, **body})


def _without_graph_breaks(step: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(step)
    def run(optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(optimizer.defaults["differentiable"]):
            return step(optimizer, *args, **kwargs)

    return run


def _differentiable_step_code() -> CodeType | None:
    """The code of what torch puts around the steps that may be differentiated."""
    wrap = getattr(sys.modules[torch.optim.Optimizer.__module__], "_use_grad_for_differentiable", None)
    return None if wrap is None else wrap(len).__code__


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that `torch.compile` runs as it is: what it counts would be traced as constants otherwise, and be
    compiled anew each time. To say so imports torch._dynamo, so it is said when it is traced first.
    """

    def run(*args: Any) -> Any:
        if not torch.compiler.is_compiling():
            return function(*args)
        if function not in _UNTRACED:
            _UNTRACED[function] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return _UNTRACED[function](*args)

    run.__code__ = run.__code__.replace(co_name=function.__name__)  # torch counts how often a code was compiled
    return functools.update_wrapper(run, function)


_UNTRACED: Final[dict[Callable[..., Any], Callable[..., Any]]] = {}  # at most one for each function that is wrapped


def _is_untraced(function: Callable[..., Any]) -> bool:
    """Whether `torch.compiler.disable` made this; what wraps such a function has a copy of its marks, not its id."""
    return getattr(function, "_torchdynamo_wrapper_id", None) == id(function)


def may_have_compiled() -> bool:
    """Whether `torch.compile` has been used in this process; to ask it would take seconds. Lacking: False."""
    return "torch._dynamo" in sys.modules


def is_flat(parameter: torch.Tensor) -> bool:
    """Whether FSDP1 has laid several parameters into this one. Lacking: never."""
    return getattr(parameter, "_is_flat_param", False) is True


def backward_pass() -> int | None:
    """A number of the backward pass inside of which this is called, as by a hook; None outside. Lacking: None."""
    current = None if torch.compiler.is_compiling() else private("_C", "_current_graph_task_id")
    number = -1 if current is None else int(current())
    return None if number < 0 else number


def norms(tensors: Sequence[torch.Tensor], dtype: torch.dtype | None, order: float = 2) -> Sequence[torch.Tensor]:
    """The norm of each of some tensors of one device and type, accumulated in `dtype`. Lacking: one by one."""
    together = private("_foreach_norm")
    if together is None:
        return [torch.linalg.vector_norm(t, order, dtype=dtype) for t in tensors]
    found: Sequence[torch.Tensor] = together(tensors, order, dtype=dtype)
    return found


def fused(kernel: str) -> Callable[..., None] | None:
    """A fused optimizer kernel, as `_fused_adamw_`, that steps lists of tensors. Lacking: None."""
    found: Callable[..., None] | None = private(kernel)
    return found


def add_one(tensors: Sequence[torch.Tensor]) -> None:
    """Add 1 to each tensor, in place. Lacking: one by one."""
    _all("_foreach_add_", torch.Tensor.add_, tensors, 1)


def add(tensors: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> None:
    """Add to each tensor the other at its place, in place. Lacking: one by one."""
    _each("_foreach_add_", torch.Tensor.add_, tensors, others)


def subtract(tensors: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> None:
    """Subtract from each tensor the other at its place, in place. Lacking: one by one."""
    _each("_foreach_sub_", torch.Tensor.sub_, tensors, others)


def copy(tensors: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
    """Copy into each tensor the source at its place. Lacking: one by one."""
    _each("_foreach_copy_", torch.Tensor.copy_, tensors, sources)


def zero(tensors: Sequence[torch.Tensor]) -> None:
    """Fill tensors with zeros. Lacking: one by one."""
    _each("_foreach_zero_", torch.Tensor.zero_, tensors)


def _each(name: str, alone: Callable[..., object], *columns: Sequence[torch.Tensor]) -> None:
    together = private(name)
    if together is not None:
        together(*columns)
        return
    for row in zip(*columns, strict=True):
        alone(*row)


def _all(name: str, alone: Callable[..., object], tensors: Sequence[torch.Tensor], value: float | torch.Tensor) -> None:
    together = private(name)
    if together is not None:
        together(tensors, value)
        return
    for t in tensors:
        alone(t, value)


def multiply(tensors: Sequence[torch.Tensor], factor: torch.Tensor) -> None:
    """Multiply tensors of one device and type by a 0-dim tensor there, in place. Lacking: one by one."""
    _all("_foreach_mul_", torch.Tensor.mul_, tensors, factor)


def multiply_each(tensors: Sequence[torch.Tensor], factors: Sequence[torch.Tensor]) -> None:
    """Multiply each tensor by the one at its place, in place. Lacking: one by one."""
    _each("_foreach_mul_", torch.Tensor.mul_, tensors, factors)


def clamp(tensors: Sequence[torch.Tensor], bound: float) -> None:
    """Bring every entry of some tensors into [-bound, bound], in place. Lacking: one by one."""
    _all("_foreach_clamp_min_", torch.Tensor.clamp_min_, tensors, -bound)
    _all("_foreach_clamp_max_", torch.Tensor.clamp_max_, tensors, bound)


def as_coalesced(sparse: torch.Tensor) -> torch.Tensor:
    """A sparse tensor whose indices are known to be sorted and unique. Lacking: they are sorted."""
    mark = getattr(sparse, "_coalesced_", None)
    marked: torch.Tensor = sparse.coalesce() if mark is None else mark(True)
    return marked


def stored_values(sparse: torch.Tensor) -> torch.Tensor:
    """The values that a sparse tensor stores, coalesced or not. Lacking: of the coalesced one."""
    read = getattr(sparse, "_values", None)
    values: torch.Tensor = sparse.coalesce().values() if read is None else read()
    return values


def output_shapes(node: Any) -> list[torch.Size]:
    """The shapes of the outputs of the operation whose backward an autograd node is. Lacking: none."""
    return [torch.Size(output.shape) for output in getattr(node, "_input_metadata", None) or ()]


def saved_for_backward(node: Any, name: str) -> Any:
    """What an autograd node has kept as `name` ("other", "alpha"). Lacking, or freed by a backward: None."""
    try:
        return getattr(node, f"_saved_{name}", None)
    except RuntimeError:  # freed
        return None


def hooks_after_grad(tensor: torch.Tensor) -> list[Callable[[torch.Tensor], object]]:
    """What `register_post_accumulate_grad_hook` was given for a tensor. Lacking: none."""
    return [*(getattr(tensor, "_post_accumulate_grad_hooks", None) or {}).values()]


def storage_key(tensor: torch.Tensor) -> int:
    """A number for the memory of a tensor, for as long as that lives. Lacking: its address."""
    storage = tensor.untyped_storage()
    return int(getattr(storage, "_cdata", storage.data_ptr()))


def storage_users(tensor: torch.Tensor) -> int | None:
    """How many tensors, itself and those that numpy keeps included, refer to the memory of one. Lacking: None."""
    count, storage = private("_C", "_storage_Use_Count"), tensor.untyped_storage()
    return None if count is None else int(count(storage._cdata)) - 1  # without `storage`


def scaler_state(scaler: Any) -> tuple[torch.Tensor | float, ...]:
    """The scale of a GradScaler and how many updates it has seen since that changed, without waiting for the device.

    Lacking: `get_scale()` alone, which waits.
    """
    held = [getattr(scaler, name, None) for name in ("_scale", "_growth_tracker")]
    tensors = [value.clone() for value in held if isinstance(value, torch.Tensor)]
    return tuple(tensors) if len(tensors) == len(held) else (float(scaler.get_scale()),)


def found_inf(scaler: Any, optimizers: Sequence[object]) -> bool:
    """Whether a GradScaler has found infinite gradients of these and not been updated since. Lacking: no."""
    states = getattr(scaler, "_per_optimizer_states", {})
    found = [states[id(one)].get("found_inf_per_device", {}) for one in optimizers if id(one) in states]
    return any(bool(flag.item()) for flags in found for flag in flags.values())


def default_store() -> Any:
    """The store of the default process group, where ranks leave small things for one another. Lacking: None."""
    find = private("distributed", "distributed_c10d", "_get_default_store")
    return None if find is None else find()


def steps_under_way(optimizer: torch.optim.Optimizer) -> int | None:
    """How many calls of the hooked step of `optimizer` are on this thread's stack.

    torch wraps the step of every class (`Optimizer.profile_hook_step`), so a class whose step calls its parent's runs
    hooks twice, and a step that raises runs no post hook. Only the stack tells the two apart. None where the wrapper is
    not as it is known. (The stacks of other threads cannot be walked through: they change meanwhile, and CPython 3.11
    crashes.)
    """
    code = _HOOKED_STEP
    if code is None:
        return None
    count, frame = 0, sys._getframe().f_back
    while frame is not None:
        if frame.f_code is code and frame.f_locals.get("self") is optimizer:
            count += 1
        frame = frame.f_back
    return count


def _hooked_step_code() -> CodeType | None:
    wrap = private("optim", "Optimizer", "profile_hook_step")
    code = getattr(wrap(_hooked_step_code), "__code__", None) if callable(wrap) else None
    return code if isinstance(code, CodeType) and "self" in code.co_varnames else None


_HOOKED_STEP = _hooked_step_code()  # no cached call: a compiled step reads it


def backward(tensors: Sequence[torch.Tensor], starts: Sequence[torch.Tensor]) -> None:
    """`torch.autograd.backward` of plain tensors from gradients that are known to fit, without a look at each of them.

    Lacking: torch's own.
    """
    if _RUN_BACKWARD is None or any(type(tensor) is not torch.Tensor for tensor in tensors):
        torch.autograd.backward(tensors, starts)
    else:
        _RUN_BACKWARD(tuple(tensors), tuple(starts), False, False, (), allow_unreachable=True, accumulate_grad=True)


_RUN_BACKWARD: Final = private("autograd", "graph", "_engine_run_backward")


def may_be_in_autocast() -> bool:
    """Whether an `autocast` of any device is on. Lacking: True, so that each device is asked."""
    return _ANY_AUTOCAST is None or bool(_ANY_AUTOCAST())


_ANY_AUTOCAST: Final = private("_C", "_is_any_autocast_enabled")


def is_profiling() -> bool:
    """Whether a profiler of torch is at work, so that labels are seen. Lacking: True, so that they are always made."""
    return getattr(torch.autograd.profiler, "_is_profiler_enabled", True) is not False


def hooked_step(step: Callable[..., Any]) -> Callable[..., Any]:
    """What torch puts around the step of every optimizer, where there is anything for it to do: a hook, a profiler.

    It calls the hooks, and labels the step for profilers, which takes longer than many a small step's kernel even if
    there is none. So does `torch.no_grad()` around the step, with its three objects a call. Lacking what is looked at:
    torch's own wrapper always.
    """
    with_hooks: Callable[..., Any] = torch.optim.Optimizer.profile_hook_step(torch.no_grad()(step))
    pre, post = (getattr(_OPTIMIZERS, f"_global_optimizer_{when}_hooks", True) for when in ("pre", "post"))

    @functools.wraps(step)
    def run(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        wanted = args or kwargs or pre or post or torch.compiler.is_compiling() or is_profiling()
        if wanted or has_step_hooks(self):
            return with_hooks(self, *args, **kwargs)
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        try:
            return step(self)
        finally:
            torch.set_grad_enabled(before)

    run.hooked = True  # type: ignore[attr-defined]
    return run


def has_step_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether somebody has registered hooks around the step of `optimizer`. Lacking: none are seen."""
    before, after = _STEP_HOOKS
    return bool(getattr(optimizer, before, None) or getattr(optimizer, after, None))


def runs_step_hooks(optimizer: object) -> bool:
    """Whether a step of `optimizer` runs its hooks: torch marks the steps that it has wrapped, a trainer's are not.

    Where the mark is not as it is known, whatever is an optimizer is said to run hooks.
    """
    if not _marks_hooked_steps():
        return isinstance(optimizer, torch.optim.Optimizer)
    return bool(getattr(getattr(type(optimizer), "step", None), "hooked", False))


@functools.cache
def _marks_hooked_steps() -> bool:
    return bool(getattr(torch.optim.SGD([torch.zeros(())], lr=0.0).step, "hooked", False))


def clip_functions() -> list[tuple[Any, str]]:
    """(module, name) of the functions that torch's clipping looks up when it runs, however it was imported itself.

    `_clip_grads_with_norm_` gets the parameters; `_group_tensors_by_device_and_dtype` gets their gradients, as the one
    element of a list, also from clipping by value. Names that there are not are left out; without any of them the
    clipping that is called as `torch.nn.utils.clip_grad_norm_` is seen, and what was imported by name is not.
    """
    known = [(clip_grad, name) for name in (_CLIPS, _GROUPS) if callable(getattr(clip_grad, name, None))]
    if known:
        return known
    return [(torch.nn.utils, name) for name in ("clip_grad_norm_", "clip_grad_value_")]


def is_measuring(caller: FrameType | None) -> bool:
    """Whether a call came from torch's `get_total_norm`, which groups gradients and clips nothing."""
    code = _code_of(getattr(clip_grad, _MEASURES, None))
    return caller is not None and code is not None and caller.f_code is code


def _code_of(function: Callable[..., object] | None) -> object:
    return getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None


def set_versions(tensors: Sequence[torch.Tensor], versions: Sequence[int]) -> None:
    """Let tensors have the version counters that they had. Lacking: they count on, which autograd takes for writes."""
    write = private("_C", "_autograd", "_unsafe_set_version_counter")
    moved = [(t, v) for t, v in zip(tensors, versions, strict=True) if t._version != v]
    if write is not None and moved:
        write(tuple(t for t, _ in moved), tuple(v for _, v in moved))


def has_save_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether anything is to be called before or after `state_dict`. Lacking: True, and torch calls what there is."""
    return any(getattr(optimizer, name, True) for name in _SAVE_HOOKS)


def cast_as_loaded(p: torch.Tensor, value: torch.Tensor, key: object, group: Mapping[str, Any]) -> torch.Tensor:
    """A saved tensor of `p`'s state in the dtype and place that a load gives it, under the flags of a group at position
    0. Lacking: `p`'s, but for numbers."""
    cast = getattr(torch.optim.Optimizer, _CAST, lambda *_: value.to(p) if value.ndim else value)
    found: torch.Tensor = cast(p, value, 0, [group], key)
    return found


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that sees every operation, without the import of torch._dynamo, which takes seconds, at its first.

    Lacking: torch imports it.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
