"""`groupwise diff`: what a plan changes, compared with another plan, and with the plan that wrote a checkpoint."""

from pathlib import Path

import pytest
import torch

from groupwise import GroupedOptimizer, Plan
from groupwise.checkpoint import save
from tests.cli.commands import CONSTANT, MODELS, PLAN, run, written
from tests.cli.models import Tiny

TINY = f"{MODELS}:on_meta"
FASTER = PLAN.replace("cosine = 1e-3", "cosine = 2e-3")


def diff(before: Path, after: Path, *more: str) -> tuple[int, str, str]:
    done = run("diff", before, after, "--model", TINY, *more)
    return done.exit_code, done.stdout, done.stderr


def trained(plan: str = CONSTANT) -> tuple[Tiny, GroupedOptimizer]:
    model = Tiny()
    return model, GroupedOptimizer(model, Plan.loads(plan))


def test_two_plans_that_come_to_the_same_leave_with_0(tmp_path: Path) -> None:
    one, other = written(tmp_path), written(tmp_path, f"# a comment\n{PLAN}", "other.toml")
    status, out, _ = diff(one, other)
    assert (status, out.splitlines()[-1]) == (0, "Both come to the same for every parameter.")


def test_what_differs_is_printed_and_leaves_with_1(tmp_path: Path) -> None:
    one, other = written(tmp_path), written(tmp_path, FASTER.replace("{ norm = 1.0 }", "{ norm = 2.0 }"), "other.toml")
    status, out, _ = diff(one, other)
    assert status == 1
    assert "clip over everything: norm 1 → norm 2" in out
    assert "cosine(1e-3, warmup=10%) → cosine(2e-3, warmup=10%)" in " ".join(out.split())
    assert "10 of 10 tensors differ" in out


def test_a_balance_table_is_compared(tmp_path: Path) -> None:
    one, other = written(tmp_path), written(tmp_path, f'{PLAN}\n[balance]\nmethod = "FAMO"\n', "other.toml")
    status, out, _ = diff(one, other)
    assert status == 1
    assert "balance: none → method = FAMO" in out


def test_a_checkpoint_of_the_same_plan_comes_to_the_same(tmp_path: Path) -> None:
    model, optimizer = trained(PLAN)
    save(tmp_path / "run.pt", model=model, optimizer=optimizer)
    assert diff(tmp_path / "run.pt", written(tmp_path))[0] == 0


@pytest.mark.parametrize("form", ["ours", "torch's", "nested"])
def test_a_checkpoint_says_what_its_plan_declared(form: str, tmp_path: Path) -> None:
    model, optimizer = trained(PLAN)
    path = tmp_path / "run.pt"
    if form == "ours":
        save(path, model=model, optimizer=optimizer)
    else:
        state = optimizer.state_dict()
        torch.save(state if form == "torch's" else {"epoch": 3, "optimizer_state_dict": state}, path)
    status, out, _ = diff(path, written(tmp_path, FASTER))
    assert status == 1
    assert "→ cosine(2e-3" in out.replace("0.002", "2e-3")
    assert "10 of 10 tensors differ" in out


def test_a_checkpoint_of_another_optimizer_is_compared_by_its_values(tmp_path: Path) -> None:
    model = Tiny()
    named = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.5)
    torch.optim.lr_scheduler.LambdaLR(named, lambda _: 0.25)
    torch.save(named.state_dict(), tmp_path / "run.pt")
    status, out, _ = diff(tmp_path / "run.pt", written(tmp_path, CONSTANT))
    assert status == 1
    assert "momentum  0.5 → 0.9" in out
    assert "lr " not in out  # the rate before its scheduler is the plan's


def test_parameters_that_a_checkpoint_lacks_are_new(tmp_path: Path) -> None:
    model = Tiny()
    some = torch.optim.SGD([(n, p) for n, p in model.named_parameters() if "head" not in n], lr=0.1, momentum=0.9)
    torch.save(some.state_dict(), tmp_path / "run.pt")
    _, out, _ = diff(tmp_path / "run.pt", written(tmp_path, CONSTANT))
    assert "2 tensors, 10 parameters: head.weight, head.bias" in out
    assert "new: not there before" in out
    assert "2 of 10 tensors differ" in out


def test_what_is_neither_plan_nor_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.pt").write_bytes(b"nothing of the kind")
    status, _, err = diff(tmp_path / "run.pt", written(tmp_path, CONSTANT))
    assert status == 2
    assert "neither a plan" in err


def test_a_checkpoint_without_an_optimizer_says_what_it_has(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "weights": {}}, tmp_path / "run.pt")
    status, _, err = diff(tmp_path / "run.pt", written(tmp_path, CONSTANT))
    assert status == 2
    assert "it has epoch, weights" in err


def test_a_checkpoint_comes_first(tmp_path: Path) -> None:
    status, _, err = diff(written(tmp_path, CONSTANT), tmp_path / "run.pt")
    assert status == 2
    assert "the second is a plan file" in err


def test_the_one_of_two_plans_that_does_not_fit_is_named(tmp_path: Path) -> None:
    bad = written(tmp_path, CONSTANT + '[[rule]]\nmatch = "neck"\nlr = 0.2\n', "bad.toml")
    status, _, err = diff(written(tmp_path, CONSTANT), bad)
    assert status == 2
    assert "bad.toml: rule 2 'neck' matches no parameter" in err
