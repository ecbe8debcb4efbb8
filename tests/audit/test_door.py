"""What audit takes, what it says of the rest, and how findings read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler

import groupwise
from groupwise.audit import CHECKS, Finding, audit, inspect, watch
from groupwise.errors import AuditError
from tests.audit.programs import Classifier, Tasks, X
from tests.docs.pages import DOCS

model = Classifier()
optimizer = SGD(model.parameters(), lr=0.1)

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no model": (lambda: audit([1], optimizer), r"model: list is not a model; give the module itself"),
    "a class": (lambda: audit(Classifier, optimizer), r"model: the class Classifier is not a model"),
    "parameters": (
        lambda: audit(model.parameters(), optimizer),
        r"give the module itself \(not model.parameters\(\)\)",
    ),
    "an empty model": (lambda: audit(nn.ReLU(), optimizer), "the model has no parameters"),
    "no optimizer": (lambda: audit(model, []), "there is no optimizer; give audit"),
    "None": (lambda: audit(model, None), "optimizers: None is no optimizer; give one, a list of them, or a mapping"),
    "an optimizer's name": (lambda: audit(model, "SGD"), "optimizers: 'SGD' is no optimizer"),
    "a class of optimizers": (lambda: audit(model, [SGD]), "optimizer: the class SGD is no optimizer"),
    "a model among them": (
        lambda: audit(model, {"adam": model}),
        "adam: this Classifier is no optimizer: it has no list",
    ),
    "groups": (lambda: audit(model, optimizer.param_groups), r"optimizer: .* is no optimizer"),
    "an optimizer as scheduler": (lambda: audit(model, optimizer, optimizer), "schedulers: this SGD is no scheduler"),
    "a list of no schedulers": (
        lambda: audit(model, optimizer, [3]),
        r"scheduler: 3 is no scheduler: it has no .optim",
    ),
    "a number as loss": (lambda: audit(model, optimizer, losses=0.5), r"'loss' is 0.5, not a tensor; .* before .item"),
    "numbers as losses": (lambda: audit(model, optimizer, losses={"seg": 0.5}), r"'seg' is 0.5, not a tensor"),
    "a list of losses": (lambda: audit(model, optimizer, losses=[model.loss()]), "mapping of task to tensor"),
    "no losses": (lambda: audit(model, optimizer, losses={}), "losses is an empty mapping"),
    "losses by example": (lambda: audit(model, optimizer, losses=model(X)), r"'loss' has shape \(6, 3\); .* reduce it"),
    "a function without its batch": (lambda: audit(model, optimizer, losses=model.forward), "give batch=, too"),
    "a batch for nobody": (lambda: audit(model, optimizer, batch=X), "give losses, too"),
    "a batch for a tensor": (lambda: audit(model, optimizer, losses=model.loss(), batch=X), "leave batch out"),
    "no steps": (lambda: watch(model, optimizer, steps=0), "steps = 0: watch at least one step"),
    "steps that are text": (lambda: watch(model, optimizer, steps="5"), "steps = '5'"),
    "a watch without an optimizer": (lambda: watch(model, {}), "there is no optimizer"),
}


@pytest.mark.parametrize(("call", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_audited_is_refused_in_one_line(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(AuditError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_face_shows_the_package() -> None:
    assert groupwise.audit.audit is audit
    assert groupwise.audit.watch is watch


@pytest.mark.parametrize("shape", [lambda o: o, lambda o: [o], lambda o: (o,), lambda o: iter([o])])
def test_one_optimizer_may_be_given_in_any_wrapping(shape: Callable[[object], object]) -> None:
    found = audit(model, shape(SGD(model.stem.parameters(), lr=0.1)))
    assert 'optimizer.add_param_group({"params":' not in found[0].remedy  # two parts are missing
    assert [finding.check for finding in found] == ["unowned"]


def test_a_finding_names_the_optimizer_as_the_caller_does() -> None:
    heads = Tasks().heads
    found = audit(heads, {"slow": SGD(heads["seg"].parameters(), lr=0.1), "fast": SGD(heads.parameters(), lr=1.0)})
    assert "slow (group 0)" in found[0].message
    assert "fast (group 0)" in found[0].message


def test_a_finding_reads_in_two_lines_with_whole_modules_by_their_names() -> None:
    tasks = Tasks()
    assert str(audit(tasks, SGD(tasks.heads.parameters(), lr=0.1))[0]) == (
        "error unowned: no optimizer owns trunk.* (4 tensors): they are trainable and never change\n"
        '  fix: optimizer.add_param_group({"params": model.trunk.parameters()}); '
        "or say that they stay as they are: requires_grad_(False)"
    )


@pytest.mark.parametrize("missing", ["head", "blocks.1", "blocks.1.0.bias", "stem.weight"])
def test_the_proposed_fix_mends_the_program(missing: str) -> None:
    model = Classifier()
    optimizer = SGD([p for name, p in model.named_parameters() if not name.startswith(missing)], lr=0.1)
    fix = audit(model, optimizer)[0].remedy.partition(";")[0]
    eval(fix, {"optimizer": optimizer, "model": model})
    assert not audit(model, optimizer)


def test_what_could_not_be_looked_for_is_said() -> None:
    seen = inspect(model, optimizer)
    assert set(seen.ran) | set(seen.skipped) == {check.name for check in CHECKS}
    assert not set(seen.ran) & set(seen.skipped)
    assert seen.skipped["unreached"] == "losses=, example= or a loop under audit.watch"
    assert seen.skipped["foreign-scheduler"] == "schedulers="
    assert "not run without a loop under audit.watch: kept-gradients" in str(seen)
    whole = inspect(model, optimizer, lr_scheduler.StepLR(optimizer, 3), model.loss())
    assert set(whole.skipped) == {check.name for check in CHECKS if check.needs == ("loop",)}


def test_findings_of_a_watch_are_there_while_it_runs() -> None:
    model = Classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as seen:
        for step in range(3):
            model.loss().backward()
            optimizer.step()
            assert any(finding.check == "kept-gradients" for finding in seen.findings) is (step > 0)
    assert str(seen).startswith("error kept-gradients")


def test_checks_have_names_of_their_own_and_the_documentation_has_them_all() -> None:
    rows = [f"| `{check.name}` | {check.severity} | {check.what} | {check.remedy} |" for check in CHECKS]
    page = (DOCS / "audit.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("| `")] == rows
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_findings_are_values() -> None:
    one, other = (audit(model, SGD(model.stem.parameters(), lr=0.1)) for _ in range(2))
    assert one == other
    assert isinstance(one[0], Finding)
    assert len({*one, *other}) == 1


def test_parameters_of_real_data_parallel_go_by_their_own_names(tmp_path: Any) -> None:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(Classifier())
        found = audit(wrapped, SGD(wrapped.module.stem.parameters(), lr=0.1), losses=wrapped(X).square().mean())
        assert set(found[0].parameters) == {n for n, _ in model.named_parameters() if not n.startswith("stem")}
        assert not audit(wrapped, SGD(wrapped.parameters(), lr=0.1), losses=wrapped(X).square().mean())
    finally:
        torch.distributed.destroy_process_group()
