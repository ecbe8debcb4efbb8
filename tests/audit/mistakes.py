"""Silent mistakes, each a small program as tutorials have them, with what an audit must say of it, and no more."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import SGD, Adam, AdamW, lr_scheduler
from torch.utils.checkpoint import checkpoint

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after, clip_norm
from groupwise.audit import Finding, audit, watch
from groupwise.errors import GroupwiseWarning
from groupwise.schedules import cosine
from tests.audit.programs import Classifier, Tasks, X, Y, gan, named, split
from tests.vision import import_timm

Found = tuple[list[Finding], Collection[str] | None]


@dataclass(frozen=True)
class Mistake:
    """What must be found, at which severity, by a program that returns its findings and the parameters concerned."""

    check: str
    severity: str
    program: Callable[[], Found]


MISTAKES: dict[str, Mistake] = {}
BASE = Rule("*", optimizer="SGD", lr=0.1)


def says(check: str, severity: str) -> Callable[[Callable[[], Found]], Callable[[], Found]]:
    """Register a mistake."""

    def register(program: Callable[[], Found]) -> Callable[[], Found]:
        MISTAKES[program.__name__] = Mistake(check, severity, program)
        return program

    return register


# who owns what


@says("unowned", "error")
def optimizer_over_a_list_that_misses_the_trunk() -> Found:
    model = Tasks()
    return audit(model, SGD(model.heads.parameters(), lr=0.1)), named(model, "trunk")


@says("unowned", "error")
def head_left_out_of_the_groups() -> Found:
    model = Classifier()
    optimizer = SGD([{"params": model.stem.parameters()}, {"params": model.blocks.parameters()}], lr=0.1)
    return audit(model, optimizer, losses=model.loss()), named(model, "head")


@says("unowned", "error")
def a_module_added_after_the_optimizer() -> Found:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    model.late = nn.Linear(2, 2)
    return audit(model, optimizer), named(model, "late")


@says("owned-twice", "error")
def each_tasks_optimizer_with_the_trunk() -> Found:
    model = Tasks()
    optimizers = {
        task: SGD([*model.trunk.parameters(), *head.parameters()], lr=0.1) for task, head in model.heads.items()
    }
    return audit(model, optimizers, losses=model.losses), named(model, "trunk")


@says("owned-twice", "error")
def the_trunk_in_two_optimizers_of_a_loop_that_is_otherwise_right() -> Found:
    model = Tasks()
    one = SGD([*model.trunk.parameters(), *model.heads["seg"].parameters()], lr=0.01)
    other = SGD([*model.trunk.parameters(), *model.heads["depth"].parameters()], lr=0.01)
    with watch(model, [one, other]) as seen:
        for _ in range(3):
            model.zero_grad()
            sum(model.losses().values()).backward()
            one.step()
            other.step()
    return seen.findings, named(model, "trunk")


@says("owned-twice", "error")
def the_same_head_in_both_optimizers() -> Found:
    model = Classifier()
    return audit(model, [SGD(model.parameters(), lr=0.1), Adam(model.head.parameters())]), named(model, "head")


@says("frozen-owned", "note")
def frozen_backbone_handed_over() -> Found:
    model = Classifier()
    model.stem.requires_grad_(False)
    return audit(model, SGD(model.parameters(), lr=0.1)), named(model, "stem")


@says("frozen-owned", "warning")
def frozen_after_a_backward() -> Found:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    model.loss().backward()
    model.stem.requires_grad_(False)
    return audit(model, optimizer), named(model, "stem")


@says("outside", "note")
def a_loss_with_parameters_of_its_own() -> Found:
    model, log_variances = Tasks(), nn.Parameter(torch.zeros(2))
    return audit(model, SGD([*model.parameters(), log_variances], lr=0.1)), ()


@says("stale", "error")
def new_head_after_the_optimizer() -> Found:
    model = Classifier(classes=10)
    optimizer = SGD(model.parameters(), lr=0.1)
    model.head = nn.Linear(8, 3)
    return audit(model, optimizer, losses=model.loss()), named(model, "head")


@says("stale", "error")
def model_built_twice() -> Found:
    optimizer = SGD(Classifier().parameters(), lr=0.1)
    model = Classifier()
    return audit(model, optimizer), named(model, "")


@says("stale", "error")
def materialised_after_the_optimizer() -> Found:
    with torch.device("meta"):
        model = Classifier()
    optimizer = SGD(split(model), lr=0.1)
    model = model.to_empty(device="cpu")
    return audit(model, optimizer), named(model, "")


@says("stale", "error")
def moved_with_new_tensors_after_the_optimizer() -> Found:
    model = Classifier()
    optimizer = SGD(model.named_parameters(), lr=0.1)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model.double()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
    return audit(model, optimizer), named(model, "")


@says("stale", "error")
def one_layer_re_initialised_with_a_new_parameter() -> Found:
    model = Classifier()
    optimizer = SGD(split(model), lr=0.1)
    model.stem.weight = nn.Parameter(torch.empty(8, 4).normal_(std=0.02))
    return audit(model, optimizer), {"stem.weight"}


@says("shared-unowned", "error")
def task_optimizers_that_never_touch_the_trunk() -> Found:
    model = Tasks()
    optimizers = [Adam(head.parameters()) for head in model.heads.values()]
    return audit(model, optimizers, losses=model.losses()), named(model, "trunk")


# what no loss reaches


@says("unreached", "warning")
def a_head_that_no_loss_uses() -> Found:
    model = Tasks()
    return audit(model, SGD(model.parameters(), lr=0.1), losses=model.losses()["seg"]), named(model, "heads.depth")


@says("unreached", "warning")
def features_detached_on_the_way() -> Found:
    model = Classifier()
    loss = nn.functional.cross_entropy(model.head(model.features(X).detach()), Y)
    return audit(model, SGD(model.parameters(), lr=0.1), losses=loss), named(model, "stem", "blocks")


@says("unreached", "warning")
def blocks_that_a_reentrant_checkpoint_cuts_off_behind_a_frozen_stem() -> Found:
    model = Classifier()
    model.stem.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's: none of the inputs have requires_grad=True
        loss = nn.functional.cross_entropy(model.head(checkpoint(model.features, X, use_reentrant=True)), Y)
    found = audit(model, SGD([p for p in model.parameters() if p.requires_grad], lr=0.1), losses=loss)
    return found, named(model, "blocks")


@says("unreached", "warning")
def blocks_that_a_plan_keeps_from_training_while_it_freezes_the_stem_below_their_checkpoint() -> Found:
    model = Classifier()
    optimizer = GroupedOptimizer(model, Plan([BASE, Rule("stem", trainable=after("9 steps"))]))
    scheduler = PlanScheduler(optimizer)
    with watch(model, optimizer, scheduler, steps=3) as seen, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(3):
            optimizer.zero_grad()
            hidden = checkpoint(model.features, X, use_reentrant=True)
            nn.functional.cross_entropy(model.head(hidden), Y).backward()
            optimizer.step()
            scheduler.step()
    return seen.findings, named(model, "blocks")


@says("unreached", "note")
def a_teacher_that_is_trainable_in_name() -> Found:
    model = nn.ModuleDict({"student": Classifier(), "teacher": Classifier()})

    def loss() -> torch.Tensor:
        with torch.no_grad():
            target = model["teacher"](X)
        return (model["student"](X) - target).square().mean()

    return audit(model, SGD(model["student"].parameters(), lr=0.1), losses=loss), named(model, "teacher")


@says("detached-loss", "error")
def a_loss_that_is_a_number() -> Found:
    model = Tasks()
    losses = model.losses()
    detached = {"seg": sum(losses.values()), "accuracy": (model.heads["seg"](model.trunk(X)).argmax(1) == Y).sum()}
    return audit(model, SGD(model.parameters(), lr=0.1), losses=detached), ()


@says("unregistered", "error")
def layers_in_a_plain_list() -> Found:
    model = Classifier()
    del model.blocks
    model.blocks = [nn.Linear(8, 8) for _ in range(2)]
    return audit(model, SGD(model.parameters(), lr=0.1), losses=model.loss()), ()


# what the groups say


@says("zero-lr", "warning")
def a_scheduler_built_while_the_rate_is_zero() -> Found:
    model = Classifier()
    groups = [
        {"params": model.stem.parameters(), "lr": 0.0},
        {"params": [*model.blocks.parameters(), *model.head.parameters()]},
    ]
    optimizer = SGD(groups, lr=0.1)
    return audit(model, optimizer, lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)), named(model, "stem")


@says("decayed-norm", "note")
def one_decay_for_everything() -> Found:
    model = Classifier()
    norms = named(model, "blocks") - {f"blocks.{i}.0.weight" for i in range(3)}
    return audit(model, AdamW(model.parameters())), norms | {"stem.bias", "head.bias"}


@says("idle-layers", "warning")
def layer_decay_whose_names_never_match() -> Found:
    model, groups = Classifier(blocks=4), []
    for name, parameter in model.named_parameters():
        layer = next((i for i in range(4) if name.startswith(f"encoder.layer.{i}.")), 3)
        groups.append({"params": [parameter], "lr": 1e-3 * 0.8 ** (3 - layer)})
    return audit(model, Adam(groups)), named(model, "")


@says("idle-layers", "warning")
def a_group_for_each_layer_without_the_factor() -> Found:
    model = Classifier()
    groups = [{"params": layer.parameters()} for layer in (model.stem, *model.blocks, model.head)]
    return audit(model, Adam(groups)), named(model, "")


@says("idle-layers", "warning")
def timm_groups_under_a_torch_scheduler() -> Found:
    timm = import_timm()
    from timm.optim import create_optimizer_v2

    model = timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=16, num_heads=2, img_size=32, num_classes=3)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.75)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    return audit(model, optimizer, scheduler), named(model, "")


@says("idle-layers", "note")
def lr_scale_that_fell_into_the_default() -> Found:
    model = Classifier()
    groups = [{**group, "lr_scale": 1.0} for group in split(model)]
    return audit(model, AdamW(groups)), named(model, "")


# schedulers


@says("foreign-scheduler", "error")
def optimizer_made_anew_at_the_unfreezing() -> Found:
    model = Classifier()
    scheduler = lr_scheduler.StepLR(SGD(model.head.parameters(), lr=0.1), 10)
    return audit(model, SGD(model.parameters(), lr=0.01), scheduler), ()


@says("foreign-scheduler", "warning")
def the_other_networks_optimizer_forgotten() -> Found:
    model = gan()
    scheduler = lr_scheduler.StepLR(SGD(model["critic"].parameters(), lr=0.1), 10)
    return audit(model["generator"], SGD(model["generator"].parameters(), lr=0.1), scheduler), ()


@says("overwritten-lr", "warning")
def one_cycle_that_levels_the_groups() -> Found:
    model = Classifier()
    backbone = [*model.stem.parameters(), *model.blocks.parameters()]
    optimizer = SGD([{"params": backbone, "lr": 1e-3}, {"params": model.head.parameters()}], lr=0.1, momentum=0.9)
    return audit(model, optimizer, lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=100)), named(model, "")


class FirstAlone(lr_scheduler.LRScheduler):
    """A list of one rate, zipped with the groups."""

    def get_lr(self) -> list[float | torch.Tensor]:
        """The first group's."""
        return [self.base_lrs[0] * min(1.0, (self.last_epoch + 1) / 10)]

    def step(self, epoch: int | None = None) -> None:
        """As far as the list goes."""
        self.last_epoch += 1
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=False):
            group["lr"] = lr


class OneForAll(FirstAlone):
    """The same rate for every group."""

    def get_lr(self) -> list[float | torch.Tensor]:
        """One, so many times."""
        return super().get_lr() * len(self.optimizer.param_groups)


@says("uneven-schedule", "warning")
def a_scheduler_that_moves_the_first_group_alone() -> Found:
    model = Classifier()
    body = [*model.stem.parameters(), *model.blocks.parameters()]
    optimizer = SGD([{"params": body}, {"params": model.head.parameters()}], lr=0.1)
    return audit(model, optimizer, FirstAlone(optimizer)), named(model, "")


@says("uneven-schedule", "warning")
def a_scheduler_that_writes_one_rate_into_all() -> Found:
    model = Classifier()
    body = [*model.stem.parameters(), *model.blocks.parameters()]
    optimizer = SGD([{"params": body, "lr": 0.01}, {"params": model.head.parameters(), "lr": 0.1}])
    return audit(model, optimizer, OneForAll(optimizer)), named(model, "")


@says("overwritten-lr", "warning")
def warmup_beside_a_plateau() -> Found:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    warmup = lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
    return audit(model, optimizer, [warmup, lr_scheduler.ReduceLROnPlateau(optimizer)]), named(model, "")


@says("overwritten-lr", "warning")
def rate_set_after_the_scheduler() -> Found:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    optimizer.param_groups[0]["lr"] = 0.001
    return audit(model, optimizer, scheduler), named(model, "")


@says("overwritten-lr", "warning")
def rate_set_by_hand_in_the_loop() -> Found:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    with watch(model, optimizer, scheduler) as seen:
        for step in range(4):
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 2)
            _update(model, optimizer)
            scheduler.step()
    return seen.findings, named(model, "")


# losses' weights


@says("idle-weight", "note")
def a_weight_to_slow_a_head_under_adam() -> Found:
    model = Tasks()
    return audit(model, Adam(model.parameters()), losses=model.losses(depth=0.1)), named(model, "heads.depth")


@says("idle-weight", "note")
def the_weight_inside_a_total() -> Found:
    model = Tasks()
    losses = model.losses()
    total = losses["seg"] + losses["depth"] / 20
    return audit(model, Adam(model.parameters()), losses=total), named(model, "heads.depth")


# loops


@says("kept-gradients", "error")
def zero_grad_on_one_of_two_optimizers() -> Found:
    model = Tasks()
    trunk, heads = SGD(model.trunk.parameters(), lr=0.01), SGD(model.heads.parameters(), lr=0.01)
    with watch(model, [trunk, heads]) as seen:
        for _ in range(3):
            heads.zero_grad()
            sum(model.losses().values()).backward()
            trunk.step()
            heads.step()
    return seen.findings, named(model, "trunk")


@says("kept-gradients", "error")
def no_zero_grad_at_all() -> Found:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer) as seen:
        for _ in range(3):
            model.loss().backward()
            optimizer.step()
    return seen.findings, named(model, "")


@says("early-scheduler", "warning")
def scheduler_first() -> Found:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.StepLR(optimizer, 2)
    with watch(model, optimizer, scheduler) as seen, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of")
        for _ in range(3):
            scheduler.step()
            _update(model, optimizer)
    return seen.findings, ()


@says("early-clip", "error")
def clipped_before_backward() -> Found:
    return _clipped_early(lambda model: clip_grad_norm_(model.parameters(), 1.0))


@says("early-clip", "error")
def clipped_before_backward_through_the_package() -> Found:
    return _clipped_early(lambda model: nn.utils.clip_grad_norm_(list(model.parameters()), 1.0, foreach=False))


@says("early-clip", "error")
def clipped_by_value_before_backward() -> Found:
    return _clipped_early(lambda model: clip_grad_value_(model.parameters(), clip_value=1.0), to_none=False)


@says("early-clip", "error")
def clipped_after_the_step() -> Found:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as seen:
        for _ in range(3):
            optimizer.zero_grad(set_to_none=False)
            model.loss().backward()
            optimizer.step()
            clip_grad_norm_(model.parameters(), 1.0)
    return seen.findings, named(model, "")


@says("never-stepped", "error")
def a_second_optimizer_that_is_forgotten() -> Found:
    model = Tasks()
    trunk, heads = SGD(model.trunk.parameters(), lr=0.01), SGD(model.heads.parameters(), lr=0.01)
    with watch(model, [trunk, heads]) as seen:
        for _ in range(3):
            model.zero_grad()
            sum(model.losses().values()).backward()
            heads.step()
    return seen.findings, named(model, "trunk")


@says("never-stepped", "error")
def a_loop_that_only_collects_gradients() -> Found:
    model = Classifier()
    with watch(model, SGD(model.parameters(), lr=0.1)) as seen:
        model.loss().backward()
    return seen.findings, named(model, "")


@says("unreached", "warning")
def cleared_between_backward_and_step() -> Found:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as seen:
        for _ in range(3):
            model.loss().backward()
            optimizer.zero_grad()
            optimizer.step()
    return seen.findings, named(model, "")


@says("clipped-twice", "warning")
def clipped_by_the_loop_and_by_the_plan() -> Found:
    return _clipped_twice(Plan([BASE], clip=clip_norm(1.0)), lambda model: clip_grad_norm_(model.parameters(), 0.5), "")


@says("clipped-twice", "warning")
def a_part_clipped_by_value_that_a_rule_clips_too() -> Found:
    plan = Plan([BASE, Rule("head", clip=clip_norm(1.0))])
    return _clipped_twice(plan, lambda model: clip_grad_value_(model.head.parameters(), 0.5), "head")


@says("spent-schedule", "warning")
def a_loop_that_outlives_its_plan() -> Found:
    model = Classifier()
    optimizer = GroupedOptimizer(model, Plan([Rule("*", optimizer="SGD", lr=cosine(0.1))]))
    scheduler = PlanScheduler(optimizer, total_steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GroupwiseWarning)
        return _outlived(model, optimizer, scheduler)


@says("spent-schedule", "warning")
def a_loop_that_outlives_a_line_to_zero() -> Found:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    return _outlived(model, optimizer, lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / 3)))


@says("frozen-norm", "warning")
def a_backbone_frozen_by_hand_that_goes_on_averaging() -> Found:
    return _drifting(nn.BatchNorm1d(8), lambda model: SGD(model["head"].parameters(), lr=0.1))


@says("frozen-norm", "warning")
def a_backbone_frozen_by_a_plan_that_goes_on_averaging() -> Found:
    plan = Plan([BASE, Rule("body", trainable=False)])
    return _drifting(nn.BatchNorm1d(8), lambda model: GroupedOptimizer(model, plan))


@says("frozen-norm", "warning")
def a_norm_without_parameters_in_a_frozen_part() -> Found:
    norm = nn.BatchNorm1d(8, affine=False)
    return _drifting(norm, lambda model: SGD(model["head"].parameters(), lr=0.1))


@says("frozen-norm", "warning")
def a_norm_of_ones_own_in_a_frozen_part() -> Found:
    return _drifting(Centred(), lambda model: SGD(model["head"].parameters(), lr=0.1))


class Centred(nn.Module):
    """Subtracts a moving mean, which it replaces instead of changing it."""

    moving_mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(8))
        self.register_buffer("moving_mean", torch.zeros(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.moving_mean = 0.9 * self.moving_mean + 0.1 * x.detach().mean(0)
        return x - self.moving_mean + self.shift


def _drifting(norm: nn.Module, optimizer_of: Callable[[nn.ModuleDict], torch.optim.Optimizer]) -> Found:
    body = nn.Sequential(nn.Linear(4, 8), norm).requires_grad_(False)
    model = nn.ModuleDict({"body": body, "head": nn.Linear(8, 1)})
    optimizer = optimizer_of(model)
    with watch(model, optimizer) as seen:
        for _ in range(3):
            optimizer.zero_grad()
            model["head"](body(X)).square().mean().backward()
            optimizer.step()
    return seen.findings, [f"body.1.{name}" for name, _ in norm.named_parameters()]


def _outlived(model: Classifier, optimizer: torch.optim.Optimizer, scheduler: Any) -> Found:
    with watch(model, optimizer, scheduler, steps=8) as seen:
        for _ in range(8):
            _update(model, optimizer)
            scheduler.step()
    return seen.findings, named(model, "")


def _clipped_twice(plan: Plan, clip: Callable[[Classifier], object], prefix: str) -> Found:
    model = Classifier()
    optimizer = GroupedOptimizer(model, plan)
    with watch(model, optimizer) as seen:
        for _ in range(3):
            optimizer.zero_grad()
            model.loss().backward()
            clip(model)
            optimizer.step()
    return seen.findings, named(model, prefix)


def _clipped_early(clip: Callable[[Classifier], object], to_none: bool = True) -> Found:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    model.loss().backward()
    with watch(model, optimizer) as seen:
        for _ in range(3):
            optimizer.zero_grad(set_to_none=to_none)
            clip(model)
            model.loss().backward()
            optimizer.step()
    return seen.findings, named(model, "")


def _update(model: Classifier, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model.loss().backward()
    optimizer.step()
