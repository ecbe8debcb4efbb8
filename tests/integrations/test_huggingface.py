"""Hugging Face's Trainer, unmodified: the same weights as our plain loop on the batches that it made."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import Trainer, TrainingArguments, get_scheduler

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule
from groupwise.errors import GroupwiseWarning, OptimizerError
from groupwise.integrations import OptimizerFactory, PlanMixin
from groupwise.schedules import cosine
from tests.integrations.models import (
    CONSTANT,
    PLAN,
    Net,
    Recorder,
    Words,
    assert_equal,
    assert_same_state,
    difference,
    plain,
)

SAMPLES, SIZE, EPOCHS = 48, 4, 2
UPDATES = SAMPLES // SIZE * EPOCHS


class PlanTrainer(PlanMixin, Trainer):
    """What a person would write."""


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    quiet: dict[str, Any] = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
    length = {} if "max_steps" in options else {"num_train_epochs": EPOCHS}
    usual = {"per_device_train_batch_size": SIZE, "max_grad_norm": 0, "use_cpu": True, "seed": 3}
    pinned = {"dataloader_pin_memory": False}
    return TrainingArguments(str(folder), **{**quiet, **length, **usual, **pinned, **options})


def trainer(folder: Path, kind: type[Trainer] = Trainer, options: dict[str, Any] | None = None, **given: Any) -> Any:
    recorder = Recorder()
    return kind(
        Net(), arguments(folder, **(options or {})), data_collator=recorder, train_dataset=Words(SAMPLES), **given
    )


def ours(net: Net, plan: Plan = PLAN, total_steps: int = UPDATES) -> tuple[GroupedOptimizer, PlanScheduler]:
    optimizer = GroupedOptimizer(net, plan)
    return optimizer, PlanScheduler(optimizer, total_steps=total_steps)


def given_ours(folder: Path, options: dict[str, Any] | None = None, total_steps: int = UPDATES) -> Any:
    """A plain Trainer with our optimizer and scheduler."""
    made, net = Recorder(), Net()
    return Trainer(
        net,
        arguments(folder, **(options or {})),
        data_collator=made,
        train_dataset=Words(SAMPLES),
        optimizers=ours(net, total_steps=total_steps),
    )


def test_with_our_optimizer_and_scheduler_it_gives_the_weights_of_the_plain_loop(tmp_path: Path) -> None:
    run = given_ours(tmp_path)
    run.train()
    assert run.state.global_step == UPDATES == len(run.data_collator.batches)
    assert_equal(run.model, plain(run.data_collator.batches))


def test_a_factory_and_the_mixin_give_the_same_weights(tmp_path: Path) -> None:
    run = trainer(tmp_path, PlanTrainer, optimizer_cls_and_kwargs=(OptimizerFactory, {"plan": PLAN}))
    run.train()
    assert_equal(run.model, plain(run.data_collator.batches))


def test_a_factory_takes_a_plan_file_with_roles_and_tags(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(
        '[[rule]]\nmatch = "*"\noptimizer = "SGD"\nlr = 0.1\n'
        '[[rule]]\nmatch = { role = "head" }\nlr = { scale = 0.1 }\n[[rule]]\nmatch = { tag = "bare" }\nlr = 0.5\n'
    )
    optimizer = OptimizerFactory()(Net(), file, roles={"head": "norm.*"}, tags={"bare": "embed.*"})
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
    assert (rates["norm.weight"], rates["head.weight"], rates["embed.weight"]) == (pytest.approx(0.01), 0.1, 0.5)


def test_its_own_schedule_multiplies_the_rates_of_the_plan(tmp_path: Path) -> None:
    options = {"lr_scheduler_type": "linear", "warmup_steps": 4}
    run = trainer(tmp_path, options=options, optimizer_cls_and_kwargs=(OptimizerFactory, {"plan": CONSTANT}))
    run.train()
    net = Net()
    optimizer = GroupedOptimizer(net, CONSTANT)
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=4, num_training_steps=UPDATES)
    for batch in run.data_collator.batches:
        optimizer.zero_grad()
        net(**batch)["loss"].backward()
        optimizer.step()
        scheduler.step()
    assert isinstance(run.lr_scheduler, LambdaLR)
    assert_equal(run.model, net)


def test_a_scheduled_plan_under_its_own_schedule_is_multiplied_at_the_peak_and_says_so_once(tmp_path: Path) -> None:
    scheduled = Plan([Rule("*", optimizer="SGD", lr=cosine(0.1, warmup="50%")), Rule("head", lr=0.4)])
    steady = Plan([Rule("*", optimizer="SGD", lr=0.1), Rule("head", lr=0.4)])
    runs = {}
    for name, plan in (("scheduled", scheduled), ("steady", steady)):
        runs[name] = trainer(tmp_path, optimizer_cls_and_kwargs=(OptimizerFactory, {"plan": plan}))
        if name == "scheduled":
            with pytest.warns(GroupwiseWarning, match="no PlanScheduler is attached") as caught:
                runs[name].train()
            assert len(caught) == 1
        else:
            runs[name].train()
    assert_equal(runs["scheduled"].model, runs["steady"].model)


@pytest.mark.parametrize("stop", [5, 12, 17])
def test_it_resumes_exactly_from_its_own_checkpoint(tmp_path: Path, stop: int) -> None:
    whole = given_ours(tmp_path / "whole")
    whole.train()
    saving = {"save_strategy": "steps", "save_steps": stop}
    half = given_ours(tmp_path / "half", {**saving, "save_total_limit": 1, "max_steps": stop})
    half.train()
    checkpoint = tmp_path / "half" / f"checkpoint-{stop}"
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    assert set(saved) == {"state", "param_groups"}
    again = given_ours(tmp_path / "again", saving)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert again.state.global_step == UPDATES
    assert_equal(again.model, whole.model)
    assert_same_state(again.optimizer, whole.optimizer)


def test_a_factory_and_the_mixin_resume_exactly(tmp_path: Path) -> None:
    def run(folder: str) -> Any:
        options = {"save_strategy": "steps", "save_steps": 10}
        factory = (OptimizerFactory, {"plan": PLAN})
        return trainer(tmp_path / folder, PlanTrainer, options, optimizer_cls_and_kwargs=factory)

    whole, again = run("whole"), run("again")
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-10"))
    assert_equal(again.model, whole.model)


def test_accumulation_is_one_step_and_one_tick_per_update(tmp_path: Path) -> None:
    run = given_ours(tmp_path, {"gradient_accumulation_steps": 3}, total_steps=UPDATES // 3)
    run.train()
    assert run.lr_scheduler.last_epoch == UPDATES // 3
    assert_equal(run.model, plain(run.data_collator.batches, accumulate=3))


def test_its_clipping_comes_before_the_plans(tmp_path: Path) -> None:
    run = given_ours(tmp_path, {"max_grad_norm": 0.1})
    run.train()
    net = Net()
    optimizer, scheduler = ours(net)
    for batch in run.data_collator.batches:
        net(**batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    assert_equal(run.model, net)
    assert difference(run.model, plain(run.data_collator.batches)) > 1e-3


def test_the_mixin_warns_once_of_two_clippings(tmp_path: Path) -> None:
    factory = (OptimizerFactory, {"plan": PLAN})
    run = trainer(tmp_path, PlanTrainer, {"max_grad_norm": 1.0, "max_steps": 3}, optimizer_cls_and_kwargs=factory)
    with pytest.warns(GroupwiseWarning, match=r"clips all gradients to 1 .*max_grad_norm=0") as caught:
        run.train()
    assert len(caught) == 1


def test_the_mixin_warns_of_parameters_added_after_the_plan_was_resolved(tmp_path: Path) -> None:
    net = Net()
    optimizer = GroupedOptimizer(net, PLAN)
    net.adapter = torch.nn.Linear(8, 2)
    run = PlanTrainer(net, arguments(tmp_path, max_steps=1), train_dataset=Words(8), optimizers=(optimizer, None))
    with pytest.warns(GroupwiseWarning, match=r"2 trainable parameters were added .*adapter\.weight, adapter\.bias"):
        run.create_scheduler(1)


def test_the_mixin_refuses_another_optimizer(tmp_path: Path) -> None:
    run = trainer(tmp_path, PlanTrainer, {"max_steps": 1})
    with pytest.raises(OptimizerError, match=r"the Trainer has AdamW: give it optimizer_cls_and_kwargs="):
        run.train()


def test_the_mixin_gives_plans_in_epochs_their_length(tmp_path: Path) -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=cosine(0.1, over="1 epochs"))])
    run = trainer(tmp_path, PlanTrainer, optimizer_cls_and_kwargs=(OptimizerFactory, {"plan": plan}))
    with pytest.warns(GroupwiseWarning, match="the lr of base is 0 from update 12 on, and the run has total_steps=24"):
        run.train()
    assert run.lr_scheduler.step_info == (UPDATES, UPDATES, UPDATES // EPOCHS)
    assert run.lr_scheduler.get_last_lr() == [0.0]


def test_a_scheduler_that_was_handed_over_stays(tmp_path: Path) -> None:
    net = Net()
    optimizer, scheduler = ours(net)
    run = PlanTrainer(net, arguments(tmp_path), train_dataset=Words(8), optimizers=(optimizer, scheduler))
    kept: LRScheduler = run.create_scheduler(UPDATES)
    assert kept is scheduler


def test_a_second_training_starts_the_schedule_again(tmp_path: Path) -> None:
    run = trainer(tmp_path, PlanTrainer, {"max_steps": 3}, optimizer_cls_and_kwargs=(OptimizerFactory, {"plan": PLAN}))
    run.train()
    first = run.lr_scheduler
    run.train()
    assert run.lr_scheduler is not first
    assert run.lr_scheduler.last_epoch == 3


def test_it_logs_the_rate_of_the_headline_group(tmp_path: Path) -> None:
    run = given_ours(tmp_path, {"logging_strategy": "steps", "logging_steps": 6})
    run.train()
    logged = [entry["learning_rate"] for entry in run.state.log_history if "learning_rate" in entry]
    _, scheduler = ours(Net())
    expected = []
    for update in range(UPDATES):
        if (update + 1) % 6 == 0:
            expected.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    assert logged == pytest.approx(expected)


def test_model_init_builds_model_and_optimizer_anew_for_each_training(tmp_path: Path) -> None:
    made = Recorder()

    def built() -> Net:
        return Net()

    run = PlanTrainer(
        args=arguments(tmp_path),
        model_init=built,
        data_collator=made,
        train_dataset=Words(SAMPLES),
        optimizer_cls_and_kwargs=(OptimizerFactory, {"plan": PLAN}),
    )
    run.train()
    assert_equal(run.model, plain(made.batches))
