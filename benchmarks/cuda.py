"""A step on a GPU:  python -m benchmarks --only cuda

The shapes of a ViT under AdamW by layer: a plan beside torch's own optimizer with the same groups and the same kernel
(foreach, fused, capturable under a CUDA graph's conditions, and compiled), timed from synchronisation to
synchronisation. `torch.cuda.set_sync_debug_mode("error")` makes a step that waits for the GPU an error, and the table
says which do. Where there is no GPU, one row says what was not measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import torch

from benchmarks.measure import Scale, Table, Timing, Work, milliseconds, race
from benchmarks.models import copies, vit_size
from groupwise import GroupedOptimizer, Plan, Rule, clip_norm, layer_decay

KERNELS: Mapping[str, Mapping[str, bool]] = {
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "foreach, capturable": {"foreach": True, "capturable": True},
    "fused, capturable": {"fused": True, "capturable": True},
}
COLUMNS = ("kernel", "torch, same groups", "plan", "plan / torch", "waits for the GPU")
UNMEASURED = "foreach and fused kernels, capturable, torch.compile, clipping, and host synchronisation on a GPU"


def tables(scale: Scale) -> Iterator[Table]:
    """One table."""
    if not torch.cuda.is_available():
        yield Table("A step on a GPU: there is none here", ["not measured"], [[UNMEASURED]])
        return
    rows = []
    for name, kernel in KERNELS.items():
        for compiled in (False, True):
            rows.append(_row(f"{name}, compiled" if compiled else name, kernel, compiled, scale))
    device = torch.cuda.get_device_name()
    yield Table(f"A step on {device}", COLUMNS, rows)
    yield Table(f"Clip for each group and step on {device}", ["kernel", "plan", "waits for the GPU"], [_clipped(scale)])


def _row(name: str, kernel: Mapping[str, bool], compiled: bool, scale: Scale) -> list[str]:
    one, other = (model.cuda() for model in copies(vit_size(64 if scale.quick else 384), 2))
    for model in (one, other):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
    planned = GroupedOptimizer(other, _plan(kernel))
    groups = GroupedOptimizer(one, _plan(kernel)).resolution.torch_groups()
    steps: dict[str, Callable[[], object]] = {"torch": torch.optim.AdamW(groups, **kernel).step, "plan": planned.step}
    if compiled:
        steps = {who: torch.compile(step) for who, step in steps.items()}
    times = race(steps, "torch", scale.seconds(2.0), clock=_synchronised)
    both = [milliseconds(times[who].seconds) for who in ("torch", "plan")]
    return [name, *both, _ratio(times["plan"]), _waits(steps["plan"])]


def _clipped(scale: Scale) -> list[str]:
    model = copies(vit_size(64 if scale.quick else 384), 1)[0].cuda()
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer = GroupedOptimizer(model, Plan([*_plan({"fused": True}).rules, Rule("*", clip=clip_norm(1.0))]))
    times = race({"plan": optimizer.step}, "plan", scale.seconds(2.0), clock=_synchronised)
    return ["fused", milliseconds(times["plan"].seconds), _waits(optimizer.step)]


def _plan(kernel: Mapping[str, bool]) -> Plan:
    return Plan([Rule("*", optimizer="AdamW", lr=1e-4, weight_decay=0.05, **kernel), Rule("*", lr=layer_decay(0.8))])


def _synchronised() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def _waits(step: Work) -> str:
    """Whether a step makes the host wait; by an error of torch's that says so."""
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return "yes"
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return "no"


def _ratio(timing: Timing) -> str:
    return f"{timing.ratio:.2f} ± {timing.spread:.2f}"
