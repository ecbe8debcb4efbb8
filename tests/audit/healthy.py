"""Healthy programs, as people write them: an audit has nothing against any of them, notes aside.

Each returns an `Inspection`, or the `watch` of a loop.
"""

from __future__ import annotations

import copy
import importlib
import tempfile
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.parametrizations import weight_norm
from torch.optim import LBFGS, SGD, Adam, AdamW, Muon, RMSprop, SparseAdam, lr_scheduler
from torch.utils.checkpoint import checkpoint

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, after, clip_norm, layer_decay, scale
from groupwise.audit import Inspection, inspect, watch
from groupwise.schedules import cosine, linear
from groupwise.select import network, role
from tests.audit.programs import Classifier, Tasks, X, Y, gan, split
from tests.vision import import_timm, import_torchvision

Program = Callable[[], Inspection | watch]
HEALTHY: dict[str, Program] = {}


def healthy(program: Program) -> Program:
    """Register a program."""
    HEALTHY[program.__name__] = program
    return program


# one optimizer


@healthy
def adamw_with_two_groups_and_a_cosine() -> Inspection:
    model = Classifier()
    optimizer = AdamW(split(model), lr=1e-3)
    return inspect(model, optimizer, lr_scheduler.CosineAnnealingLR(optimizer, 10), model.loss())


@healthy
def plain_sgd_over_everything() -> Inspection:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    return inspect(model, optimizer, lr_scheduler.MultiStepLR(optimizer, [3, 6]), model.loss)


@healthy
def equal_groups_for_three_parts() -> Inspection:
    model = Classifier()
    parts = [{"params": part.parameters()} for part in (model.stem, model.blocks, model.head)]
    return inspect(model, Adam(parts, lr=1e-3), losses=model.loss())


@healthy
def one_group_for_each_tensor_with_its_own_decay() -> Inspection:
    model = Classifier()
    groups = [{"params": [p], "weight_decay": 0.0 if p.ndim < 2 else 0.1} for p in model.parameters()]
    return inspect(model, AdamW(groups, lr=1e-3), losses=model.loss())


@healthy
def layer_decay_by_hand() -> Inspection:
    model = Classifier()
    layers = [model.stem, *model.blocks, model.head]
    groups = [{"params": layer.parameters(), "lr": 1e-3 * 0.8**i} for i, layer in enumerate(reversed(layers))]
    optimizer = AdamW(groups, weight_decay=0.0)
    return inspect(model, optimizer, lr_scheduler.ExponentialLR(optimizer, 0.9), model.loss())


@healthy
def one_cycle_with_a_rate_for_each_group() -> Inspection:
    model = Classifier()
    optimizer = Adam(
        [{"params": [*model.stem.parameters(), *model.blocks.parameters()]}, {"params": model.head.parameters()}]
    )
    return inspect(model, optimizer, lr_scheduler.OneCycleLR(optimizer, [1e-4, 1e-3], total_steps=10), model.loss())


@healthy
def warmup_from_zero_then_cosine() -> Inspection:
    model = Classifier()
    optimizer = Adam(model.parameters())
    parts = [lr_scheduler.LinearLR(optimizer, 1e-8, total_iters=2), lr_scheduler.CosineAnnealingLR(optimizer, 8)]
    return inspect(model, optimizer, lr_scheduler.SequentialLR(optimizer, parts, [2]), model.loss())


@healthy
def cyclic_from_zero() -> Inspection:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return inspect(model, optimizer, lr_scheduler.CyclicLR(optimizer, base_lr=0.0, max_lr=0.1), model.loss())


@healthy
def chained_schedulers() -> Inspection:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    both = [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    return inspect(model, optimizer, [*both, lr_scheduler.ReduceLROnPlateau(optimizer)], model.loss())


@healthy
def trained_to_a_rate_of_zero() -> watch:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / 3))
    with watch(model, optimizer, scheduler) as seen:
        for _ in range(4):
            _update(model, optimizer)
            scheduler.step()
    return seen


@healthy
def an_averaged_teacher() -> Inspection:
    student = Classifier()
    model = nn.ModuleDict({"student": student, "teacher": copy.deepcopy(student).requires_grad_(False)})
    return inspect(model, Adam(student.parameters()), losses=lambda: (student(X) - model["teacher"](X)).square().mean())


@healthy
def adapters_on_a_frozen_base() -> Inspection:
    class Adapted(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base = base.requires_grad_(False)
            self.lora_A = nn.Parameter(torch.randn(2, base.in_features) * 0.01)
            self.lora_B = nn.Parameter(torch.zeros(base.out_features, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base(x) + x @ self.lora_A.T @ self.lora_B.T

    model = Classifier().requires_grad_(False)
    for block in model.blocks:
        block[0] = Adapted(block[0])
    model.head.requires_grad_(True)
    optimizer = AdamW(split(model), lr=1e-3)
    return inspect(model, optimizer, lr_scheduler.StepLR(optimizer, 5), model.loss())


@healthy
def tied_embeddings() -> Inspection:
    model = nn.ModuleDict(
        {"words": nn.Embedding(7, 4), "body": nn.LSTM(4, 4, num_layers=2), "out": nn.Linear(4, 7, bias=False)}
    )
    model["out"].weight = model["words"].weight

    def loss() -> torch.Tensor:
        hidden, _ = model["body"](model["words"](Y[:, None]))
        return model["out"](hidden).square().mean()

    return inspect(model, Adam(model.parameters()), losses=loss)


@healthy
def parametrized_and_recomputed_layers() -> Inspection:
    model = Classifier()
    weight_norm(model.stem)

    def loss() -> torch.Tensor:
        return model.head(checkpoint(model.features, X, use_reentrant=False)).square().mean()

    return inspect(model, RMSprop(model.parameters()), losses=loss)


@healthy
def recomputed_the_old_way_where_the_graph_does_not_tell() -> Inspection:
    model = Classifier()
    hidden = checkpoint(model.features, X.clone().requires_grad_(), use_reentrant=True)
    seen = inspect(model, Adam(model.parameters()), losses=model.head(hidden).square().mean())
    assert "re-entrant" in seen.skipped["detached-loss"]
    return seen


@healthy
def under_data_parallel() -> Inspection:
    model = nn.DataParallel(Classifier())
    return inspect(model, AdamW(split(model), lr=1e-3), losses=model.module.loss())


@healthy
def a_consumed_graph() -> Inspection:
    model = Tasks()
    losses = model.losses(depth=0.1)
    sum(losses.values()).backward()
    return inspect(model, Adam(model.parameters()), losses=losses)


@healthy
def microbatches_clipped_and_scaled() -> watch:
    model = Classifier()
    optimizer = AdamW(split(model), lr=1e-3)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with watch(model, optimizer, scheduler) as seen:
        for step in range(6):
            for _ in range(2):
                scaler.scale(model.loss() * (float("inf") if step == 0 else 0.5)).backward()
            scaler.unscale_(optimizer)
            clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)  # skipped, the first time
            scaler.update()
            optimizer.zero_grad(set_to_none=step % 2 == 0)
            with_skips(scheduler)
    return seen


def with_skips(scheduler: lr_scheduler.LRScheduler) -> None:
    """A scheduler's step; after a skipped update torch warns that it came first."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of")
        scheduler.step()


@healthy
def closures() -> watch:
    model = Classifier()
    optimizer = LBFGS(model.parameters(), lr=0.1, max_iter=3)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model.loss()
        loss.backward()
        return loss

    with watch(model, optimizer) as seen:
        for _ in range(3):
            optimizer.step(closure)
    return seen


@healthy
def gradients_cleared_by_hand() -> watch:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as seen:
        for step in range(4):
            for p in model.parameters():
                if step % 2 or p.grad is None:
                    p.grad = None
                else:
                    p.grad.zero_()
            model.loss().backward()
            optimizer.step()
    return seen


@healthy
def gradients_written_by_hand() -> watch:
    model = Tasks()
    optimizer = SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as seen:
        for _ in range(3):
            loss = sum(model.losses().values())
            for p, gradient in zip(
                model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
            ):
                p.grad = gradient
            optimizer.step()
    return seen


@healthy
def a_long_training_of_which_only_the_start_is_watched() -> watch:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, steps=2) as seen:
        for step in range(5):
            if step < 3:
                optimizer.zero_grad()
            model.loss().backward()
            optimizer.step()
    return seen


# several optimizers


@healthy
def tasks_with_one_step_for_all() -> Inspection:
    model = Tasks()
    optimizers = {"trunk": SGD(model.trunk.parameters(), lr=0.01), "heads": Adam(model.heads.parameters())}
    schedulers = [lr_scheduler.StepLR(optimizer, 5) for optimizer in optimizers.values()]
    return inspect(model, optimizers, schedulers, model.losses())


@healthy
def sparse_table_and_dense_rest() -> Inspection:
    model = nn.ModuleDict({"words": nn.EmbeddingBag(9, 4, sparse=True), "head": nn.Linear(4, 3)})
    optimizers = [SparseAdam(model["words"].parameters()), AdamW(split(model["head"]))]
    return inspect(model, optimizers, losses=model["head"](model["words"](Y[:, None])).square().mean())


@healthy
def muon_for_matrices() -> Inspection:
    model = Classifier()
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if all(p is not m for m in matrices)]
    return inspect(model, [Muon(matrices, lr=0.02), Adam(rest)], losses=model.loss())


@healthy
def gan_described() -> Inspection:
    model = gan()
    optimizers = {name: Adam(part.parameters(), betas=(0.5, 0.999)) for name, part in model.items()}

    def losses(noise: torch.Tensor) -> dict[str, torch.Tensor]:
        fake = model["generator"](noise)
        real, forged = model["critic"](X), model["critic"](fake.detach())
        return {"critic": 0.5 * (forged.mean() - real.mean()), "generator": -model["critic"](fake).mean()}

    return inspect(dict(model.items()), optimizers, losses=losses, batch=torch.randn(6, 2))


@healthy
def gan_watched() -> watch:
    model = gan()
    optimizers = {name: Adam(part.parameters(), betas=(0.5, 0.999)) for name, part in model.items()}
    with watch(model, optimizers, steps=3) as seen:
        for step in range(12):
            fake = model["generator"](torch.randn(6, 2))
            optimizers["critic"].zero_grad()
            (model["critic"](fake.detach()).mean() - model["critic"](X).mean()).backward()
            clip_grad_norm_(model["critic"].parameters(), 1.0)
            optimizers["critic"].step()
            if step % 3 == 2:
                optimizers["generator"].zero_grad()
                (-model["critic"](fake).mean()).backward()
                optimizers["generator"].step()
    return seen


# ours


@healthy
def a_plan_with_a_thaw() -> watch:
    model = Classifier()
    plan = Plan([
        Rule("*", optimizer="AdamW", lr=cosine(1e-3, warmup="2 steps"), weight_decay=0.05, clip=clip_norm(1.0)),
        Rule("blocks.*", lr=layer_decay(0.75)),
        Rule("stem", trainable=after("2 steps"), lr=scale(0.1)),
        Rule(role("norm") | role("bias"), weight_decay=0.0),
    ])  # fmt: skip
    optimizer = GroupedOptimizer(model, plan)
    scheduler = PlanScheduler(optimizer, total_steps=8)
    with watch(model, optimizer, scheduler) as seen:
        for _ in range(6):
            _update(model, optimizer)
            scheduler.step()
    return seen


@healthy
def a_plan_described_before_its_thaw() -> Inspection:
    model = Classifier()
    plan = Plan([
        Rule("*", optimizer="SGD", lr=linear(0.0, end=0.1)),
        Rule("head", optimizer="Adam", lr=1e-3),
        Rule("stem", trainable=after("2 steps")),
    ])  # fmt: skip
    optimizer = GroupedOptimizer(model, plan)
    return inspect(model, optimizer, PlanScheduler(optimizer, total_steps=8))


@healthy
def two_networks_of_a_plan() -> watch:
    model = dict(gan().items())
    plan = Plan([Rule("*", optimizer="Adam", lr=1e-3), Rule(network("critic"), lr=2e-3)])
    optimizer = GroupedOptimizer(model, plan)
    views = {name: optimizer.only(name) for name in model}
    with watch(model, views, steps=3) as seen:
        for _ in range(3):
            fake = model["generator"](torch.randn(6, 2))
            with views["critic"]:
                views["critic"].zero_grad()
                (model["critic"](fake.detach()).mean() - model["critic"](X).mean()).backward()
                views["critic"].step()
            with views["generator"]:
                views["generator"].zero_grad()
                (-model["critic"](fake).mean()).backward()
                views["generator"].step()
    return seen


# other people's


@healthy
def timm_with_its_own_groups_and_scheduler() -> Inspection:
    timm = import_timm()
    model = timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=16, num_heads=2, img_size=32, num_classes=3)
    create = importlib.import_module("timm.optim").create_optimizer_v2
    optimizer = create(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.75)
    scheduler = importlib.import_module("timm.scheduler").CosineLRScheduler(optimizer, t_initial=5, warmup_t=1)
    return inspect(model, optimizer, scheduler, lambda x: model(x).square().mean(), torch.randn(2, 3, 32, 32))


@healthy
def timm_convolutions_with_no_decay_on_vectors() -> Inspection:
    model = import_timm().create_model("resnet10t", num_classes=3)
    optimizer = importlib.import_module("timm.optim").create_optimizer_v2(model, opt="sgd", lr=0.1, weight_decay=1e-4)
    return inspect(model, optimizer, losses=lambda x: model(x).square().mean(), batch=torch.randn(2, 3, 64, 64))


@healthy
def a_language_model_with_tied_words_as_transformers_trains_it() -> watch:
    import_torchvision()
    from transformers import GPT2Config, GPT2LMHeadModel, get_linear_schedule_with_warmup

    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=11, n_positions=8))
    optimizer = AdamW(split(model), lr=1e-3)
    scheduler = get_linear_schedule_with_warmup(optimizer, 2, 8)  # starts from 0
    assert not [finding for finding in inspect(model, optimizer, scheduler).findings if finding.severity != "note"]
    with watch(model, optimizer, scheduler) as seen:
        for _ in range(3):
            model(input_ids=Y[None], labels=Y[None]).loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            model.zero_grad()
    return seen


@healthy
def prepared_by_accelerate() -> watch:
    import_torchvision()
    from accelerate import Accelerator

    model = Classifier()
    optimizer = AdamW(split(model), lr=1e-3)
    scheduler = lr_scheduler.StepLR(optimizer, 2)
    accelerator = Accelerator(cpu=True)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    with watch(model, optimizer, scheduler) as seen:
        for _ in range(3):
            accelerator.backward(model.loss())
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return seen


@healthy
def under_hugging_faces_trainer() -> watch:
    import_torchvision()
    from transformers import Trainer, TrainingArguments

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Classifier()

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": nn.functional.cross_entropy(self.inner(x), labels)}

    model = Model()
    optimizer = AdamW(split(model), lr=1e-3)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    data = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)] * 4
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=4, per_device_train_batch_size=2, gradient_accumulation_steps=2, use_cpu=True,
            report_to=[], save_strategy="no", disable_tqdm=True, logging_strategy="no", dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=data, optimizers=(optimizer, scheduler))
        with watch(model, optimizer, scheduler, steps=3) as seen:
            trainer.train()
    return seen


@healthy
def a_norm_that_is_read_beside_the_plans_clip() -> watch:
    model = Classifier()
    optimizer = GroupedOptimizer(model, Plan([Rule("*", optimizer="SGD", lr=0.1)], clip=clip_norm(1.0)))
    with watch(model, optimizer) as seen:
        for _ in range(3):
            optimizer.zero_grad()
            model.loss().backward()
            clip_grad_norm_(model.parameters(), float("inf"))
            clip_grad_norm_(model.parameters(), max_norm=float("inf"))
            optimizer.step()
    return seen


@healthy
def a_part_clipped_by_hand_that_the_plan_leaves_alone() -> watch:
    model = Classifier()
    plan = Plan([Rule("*", optimizer="SGD", lr=0.1), Rule("head", clip=clip_norm(1.0))])
    optimizer = GroupedOptimizer(model, plan)
    with watch(model, optimizer) as seen:
        for _ in range(3):
            optimizer.zero_grad()
            model.loss().backward()
            clip_grad_norm_(model.blocks.parameters(), 1.0)
            optimizer.step()
    return seen


@healthy
def a_warmup_from_zero_and_restarts_at_zero() -> watch:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step % 3 == 0 else 1.0)
    with watch(model, optimizer, scheduler, steps=7) as seen:
        for _ in range(7):
            _update(model, optimizer)
            scheduler.step()
    return seen


@healthy
def a_frozen_backbone_whose_norms_are_in_evaluation() -> watch:
    return _frozen_backbone(nn.BatchNorm1d(8).eval())


@healthy
def a_frozen_backbone_whose_norm_keeps_nothing() -> watch:
    return _frozen_backbone(nn.BatchNorm1d(8, track_running_stats=False))


@healthy
def a_frozen_backbone_with_a_spectral_norm() -> watch:
    return _frozen_backbone(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)))


@healthy
def a_frozen_backbone_under_a_norm_that_trains() -> watch:
    return _frozen_backbone(nn.BatchNorm1d(8), frozen_norm=False)


@healthy
def an_averaged_teacher_whose_norm_moves_as_its_weights_do() -> watch:
    student = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    teacher = copy.deepcopy(student).requires_grad_(False)
    model = nn.ModuleDict({"student": student, "teacher": teacher})
    optimizer = SGD(student.parameters(), lr=0.1)
    with watch(model, optimizer) as seen:
        for _ in range(3):
            optimizer.zero_grad()
            (student(X) - teacher(X)).square().mean().backward()
            optimizer.step()
            with torch.no_grad():
                for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                    old.lerp_(new, 0.1)
    return seen


def _frozen_backbone(norm: nn.Module, frozen_norm: bool = True) -> watch:
    body = nn.Sequential(nn.Linear(4, 8).requires_grad_(False), norm.requires_grad_(not frozen_norm))
    model = nn.ModuleDict({"body": body, "head": nn.Linear(8, 1)})
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with watch(model, optimizer) as seen:
        for _ in range(3):
            optimizer.zero_grad()
            (model["head"](body(X)) - 1).square().mean().backward()
            optimizer.step()
    return seen


def _update(model: Classifier, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model.loss().backward()
    optimizer.step()
