"""The observer sees every kind of step, changes nothing, and writes when it should."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from groupwise import GroupedOptimizer, Plan, Rule, layer_decay
from groupwise.errors import RecordError
from groupwise.observe import Observer
from groupwise.observe import record_builder as drafting
from groupwise.observe.host_transfer import HostTransfer
from groupwise.records import read
from tests.observe.nets import ALL, Net, grouped, groups, losses, net, plan, recorded, train

FRESH = ["weight_norm", "relative_gradient", "zero", "update_norm", "contribution"]


def adamw(**given: Any) -> tuple[Net, torch.optim.Optimizer]:
    model = net()
    return model, torch.optim.AdamW(groups(model), **{"lr": 0.01, **given})


@pytest.mark.parametrize("make", [adamw, grouped])
def test_observing_changes_not_a_bit_of_the_training(make: Any, tmp_path: Path) -> None:
    ends = []
    for observed in (False, True):
        model, optimizer = make()
        if observed:
            with Observer(optimizer, tmp_path, every=ALL, along_path=True) as observer:
                train(model, optimizer, observer, 5, observer.tasks)
        else:
            for step in range(5):
                optimizer.zero_grad()
                sum(losses(model, step).values()).backward()
                optimizer.step()
        ends.append([*model.parameters(), *(p.grad for p in model.parameters())])
    assert all(a is b is None or torch.equal(a.to_dense(), b.to_dense()) for a, b in zip(*ends, strict=True))


def test_families_are_taken_at_their_cadence(tmp_path: Path) -> None:
    run = recorded(*adamw(), tmp_path, steps=41, every=1)
    assert list(run.series("groups", "heads", "grad_norm").steps) == list(range(41))
    assert list(run.series("values", "heads", "lr").steps) == list(range(41))
    assert list(run.series("groups", "heads", "weight_norm").steps) == [0, 10, 20, 30, 40]
    assert list(run.series("groups", "heads", "gradient_cosine").steps) == [10, 20, 30, 40]
    assert list(run.series("groups", "heads", "update_ratio").steps) == [0, 20, 40]
    assert run.header.every == {"values": 1, "gradients": 1, "weights": 10, "cosines": 10, "updates": 20, "tasks": 50}


def test_a_number_for_every_scales_all_cadences_and_what_is_logged_is_always_written(tmp_path: Path) -> None:
    run = recorded(*adamw(), tmp_path, steps=9, every=4)
    assert list(run.series("groups", "heads", "grad_norm").steps) == [0, 4, 8]
    assert list(run.series("scalars", "loss").steps) == list(range(9))
    assert run.header.every["updates"] == 80


def test_a_family_can_be_left_out(tmp_path: Path) -> None:
    run = recorded(*adamw(), tmp_path, every={**ALL, "updates": 0, "values": 0})
    assert run.names("values") == []
    assert "update_norm" not in run.names("groups", "heads")


@pytest.mark.parametrize(
    ("every", "message"),
    [
        ({"weight": 3}, r"unknown family of statistics 'weight'; did you mean 'weights'\?"),
        ({"weights": -1}, r"every\['weights'\] is -1"),
        ({"weights": 1.5}, r"every\['weights'\] is 1.5"),
        (0, "every=0: it has to be 1 or more"),
        ("often", "every='often' is neither a number nor a mapping"),
    ],
)
def test_a_cadence_that_is_none_is_a_clear_error(every: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=f"Observer: {message}"):
        Observer(adamw()[1], tmp_path, every=every)


def test_whatever_is_no_optimizer_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"Observer: Net is no torch.optim.Optimizer"):
        Observer(net(), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="by='tensor': it has to be one of 'group', 'rule', 'network', 'layer'"):
        Observer(adamw()[1], tmp_path, by="tensor")  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="by='rule' needs an optimizer that runs a plan, and AdamW has none"):
        Observer(adamw()[1], tmp_path, by="rule")
    with pytest.raises(RecordError, match="by='network' needs groups of named networks"):
        Observer(adamw()[1], tmp_path, by="network")
    with pytest.raises(RecordError, match=r"Observer: scaler=2\.0 is no GradScaler"):
        Observer(adamw()[1], tmp_path, scaler=2.0)  # type: ignore[arg-type]
    with pytest.raises(RecordError, match=r"Observer: 'tb' is no sink: it has no log\(values, step\)"):
        Observer(adamw()[1], tmp_path, sinks=["tb"])  # type: ignore[list-item]
    Observer(adamw()[1], tmp_path).close()  # nobody holds the folder


def test_what_cannot_be_logged_is_a_clear_error(tmp_path: Path) -> None:
    with Observer(adamw()[1], tmp_path) as observer:
        with pytest.raises(RecordError, match=r"Observer.log: losses is a mapping of task to loss, not a Tensor"):
            observer.log(losses=torch.tensor(1.0))  # type: ignore[arg-type]
        with pytest.raises(RecordError, match=r"balance is what a balancer's backward returned, not a dict"):
            observer.log(balance={"seg": 1.0})  # type: ignore[arg-type]


class Wrapper(torch.optim.Optimizer):
    """As trainers wrap: of the class, but with a step of its own."""

    def __init__(self, optimizer: object) -> None:
        self.optimizer = optimizer

    def step(self) -> None:
        self.optimizer.step()


def test_a_wrapped_optimizer_is_observed_inside_and_one_without_hooks_is_refused(tmp_path: Path) -> None:
    model, optimizer = adamw()
    with Observer(Wrapper(Wrapper(optimizer)), tmp_path) as observer:
        train(model, optimizer, observer, 2)
    assert len(read(tmp_path)) == 2
    with pytest.raises(RecordError, match="the step of Wrapper runs no hooks"):
        Observer(Wrapper(None), tmp_path)


def test_groups_without_names_and_groups_of_one_name_are_told_apart(tmp_path: Path) -> None:
    params = [nn.Parameter(torch.ones(2)) for _ in range(4)]
    listed = [{"params": [p]} for p in params]
    for group in listed[2:]:
        group["name"] = "<script>\n"
    run = recorded_of(torch.optim.SGD(listed, lr=0.1), params, tmp_path)
    assert run.names("groups") == ["group 0", "group 1", "<script>\n (2)", "<script>\n (3)"]


def recorded_of(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], folder: Path, **given: Any) -> Any:
    with Observer(optimizer, folder, **{"every": ALL, **given}):
        for _ in range(2):
            for p in params:
                p.grad = torch.ones_like(p)
            optimizer.step()
    return read(folder)


def test_a_parameter_that_takes_the_place_of_another_is_the_one_that_is_observed(tmp_path: Path) -> None:
    params = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [p]} for p in params], lr=0.1)
    with Observer(optimizer, tmp_path, every=ALL):
        for step in range(2):
            for p in params:
                p.grad = torch.full_like(p, 3.0 + step)
            optimizer.step()
            params[0] = optimizer.param_groups[0]["params"][0] = nn.Parameter(torch.ones(2))
    assert list(read(tmp_path).series("groups", "group 0", "grad_norm").values) == pytest.approx([18**0.5, 32**0.5])


def test_a_group_that_is_renamed_is_observed_under_its_new_name(tmp_path: Path) -> None:
    params = [nn.Parameter(torch.ones(2))]
    optimizer = torch.optim.SGD([{"params": params, "name": "old"}], lr=0.1)
    with Observer(optimizer, tmp_path, every=ALL):
        for name in ("old", "new"):
            optimizer.param_groups[0]["name"] = name
            params[0].grad = torch.ones(2)
            optimizer.step()
    run = read(tmp_path)
    assert [list(run.series("groups", name, "grad_norm").steps) for name in ("old", "new")] == [[0], [1]]


def test_by_rule_joins_the_groups_that_differ_by_depth(tmp_path: Path) -> None:
    blocks = nn.ModuleDict({"blocks": nn.Sequential(*(nn.Linear(3, 3) for _ in range(4))), "head": nn.Linear(3, 1)})
    rules = [
        Rule("*", optimizer="SGD", lr=1.0),
        Rule("blocks.*", lr=layer_decay(0.5)),
        Rule("*.bias", label="bias", lr=0.5),
    ]
    optimizer = GroupedOptimizer(blocks, Plan(rules))
    assert len(optimizer.param_groups) > 3
    run = recorded_of(optimizer, list(blocks.parameters()), tmp_path, by="rule")
    assert set(run.names("groups")) == {group.rule for group in run.groups}
    assert len(run.groups) < len(optimizer.param_groups)
    assert sum(group.parameters for group in run.groups) == sum(p.numel() for p in blocks.parameters())
    widest = max(run.groups, key=lambda group: group.parameters)
    rates = [g["lr"] for g in optimizer.param_groups if g["name"].startswith(widest.name)]
    assert run.series("values", widest.name, "lr").values[0] == max(rates)
    assert run.series("groups", widest.name, "step_size").values[0] == pytest.approx(1.0)


def test_by_rule_a_decay_over_everything_is_one_group_for_each_network_and_freezing(tmp_path: Path) -> None:
    """Nothing but the depth tells these groups apart, so their names have no rule in them."""
    rules = [Rule("*", optimizer="SGD", lr=1.0), Rule("*", label="ladder", lr=layer_decay(0.5))]
    blocks = [nn.Sequential(*(nn.Linear(3, 3) for _ in range(3))) for _ in range(3)]
    blocks[2][0].bias.requires_grad_(False)
    alone = GroupedOptimizer(blocks[0], Plan(rules))
    assert all(group["name"].startswith("depth") for group in alone.param_groups)
    assert recorded_of(alone, list(blocks[0].parameters()), tmp_path / "alone", by="rule").names("groups") == ["ladder"]
    both = GroupedOptimizer({"a": blocks[1], "b": blocks[2]}, Plan(rules))
    with Observer(both, tmp_path / "both", by="rule"):
        pass
    told = {group.name: (group.rule, group.tensors) for group in read(tmp_path / "both").header.groups}
    assert told == {
        "ladder/a": ("ladder/a", 6),
        "ladder/b": ("ladder/b", 5),
        "ladder/b/frozen": ("ladder/b/frozen", 1),
    }


def test_by_network_a_step_of_one_network_speaks_of_it_alone_and_is_no_change_of_groups(tmp_path: Path) -> None:
    networks = {"actor": nn.Linear(2, 2), "critic": nn.Linear(2, 1)}
    optimizer = GroupedOptimizer(networks, Plan([Rule("*", optimizer="AdamW", lr=0.1), Rule("*.bias", lr=0.2)]))
    with Observer(optimizer, tmp_path, by="network", along_path=True, every=ALL) as observer:
        for name in ("actor", "critic", "actor"):
            networks[name](torch.ones(2)).sum().backward()
            optimizer.only(name).step()
            assert list(observer.last.groups if observer.last else []) in ([], ["actor"], ["critic"])
    run = read(tmp_path)
    assert list(run.series("groups", "actor", "grad_norm").steps) == [0, 2]
    assert list(run.series("groups", "critic", "grad_norm").steps) == [1]
    assert [event.event for event in run.events] == ["finished"]


def test_the_header_tells_the_groups_and_the_plan(tmp_path: Path) -> None:
    model, optimizer = grouped()
    header = recorded(model, optimizer, tmp_path).header
    told = {group.name: group for group in header.groups}
    assert told["embed"].algorithm == "SparseAdam"
    assert (told["embed"].clip.kind, told["embed"].clip.bound, told["embed"].clip.scope) == ("norm", 0.05, "embed")
    assert (told["heads"].tensors, told["heads"].parameters) == (4, 18)
    assert header.table == str(optimizer.resolution)
    assert header.writer.startswith("groupwise")


def test_values_are_those_that_the_update_used_with_tuples_flattened(tmp_path: Path) -> None:
    model, optimizer = adamw(betas=(torch.tensor(0.8), torch.tensor(0.9)), foreach=False)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with Observer(optimizer, tmp_path) as observer:
        for step in range(3):
            used = optimizer.param_groups[1]["lr"]
            sum(losses(model, step).values()).backward()
            optimizer.step()
            scheduler.step()
            assert observer.last.values["heads"]["lr"] == used
    told = observer.last.values["heads"]
    assert (told["beta1"], told["beta2"]) == pytest.approx((0.8, 0.9))
    assert told["weight_decay"] == 0.01
    assert set(told) == {"lr", "beta1", "beta2", "eps", "weight_decay", "initial_lr"}


def test_a_regroup_is_an_event_with_the_new_groups(tmp_path: Path) -> None:
    model, optimizer = grouped()
    with Observer(optimizer, tmp_path) as observer:
        train(model, optimizer, observer, 2)
        optimizer.regroup(plan() + [Rule("body.2.*", label="second", lr=1e-3)])
        train(model, optimizer, observer, 2)
    run = read(tmp_path)
    assert [(event.step, event.event) for event in run.events] == [(2, "groups"), (4, "finished")]
    assert "second" in {group.name for group in run.groups}
    assert list(run.series("groups", "second", "grad_norm").steps) == [2, 3]


def test_a_group_that_is_added_is_an_event(tmp_path: Path) -> None:
    model, optimizer = adamw()
    with Observer(optimizer, tmp_path) as observer:
        train(model, optimizer, observer, 1)
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "name": "late"})
        train(model, optimizer, observer, 1)
    assert [group.name for group in read(tmp_path).groups] == ["trunk", "heads", "frozen", "late"]


def test_the_gradients_of_a_closure_are_seen_inside_it(tmp_path: Path) -> None:
    runs = []
    for closed in (False, True):
        model, optimizer = grouped()
        with Observer(optimizer, tmp_path / str(closed), every=ALL) as observer:
            for step in range(3):

                def closure(step: int = step, model: Any = model, optimizer: Any = optimizer) -> torch.Tensor:
                    optimizer.zero_grad()
                    loss = sum(losses(model, step).values())
                    loss.backward()
                    return loss

                if closed:
                    assert isinstance(optimizer.step(closure), torch.Tensor)
                else:
                    closure()
                    optimizer.step()
        runs.append([(observer.last.groups, observer.last.values)])
    assert runs[0] == runs[1]


def test_lbfgs_is_seen_at_the_first_call_of_its_closure(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)

    def closure() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=False)
        loss = sum(losses(model, 0).values())
        loss.backward()
        return loss

    before = [p.detach().clone() for p in model.parameters()]
    closure()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    with Observer(optimizer, tmp_path, every=ALL) as observer:
        optimizer.step(closure)
    moved = [(p - b).detach() for p, b in zip(model.parameters(), before, strict=True) if p.requires_grad]
    told = observer.last.groups["group 0"]
    assert told["grad_norm"] == pytest.approx(sum(g.square().sum().item() for g in gradients) ** 0.5)
    along = -sum((g * m).sum().item() for g, m in zip(gradients, moved, strict=True))
    assert told["contribution"] == pytest.approx(along, rel=1e-4)


def test_before_clip_shows_what_the_callers_own_clipping_did(tmp_path: Path) -> None:
    model, optimizer = adamw()
    with Observer(optimizer, tmp_path, every=ALL) as observer:
        for step in range(2):
            optimizer.zero_grad()
            sum(losses(model, step).values()).backward()
            whole = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            observer.before_clip()
            unclipped = {"trunk": [p.grad.clone() for p in optimizer.param_groups[0]["params"]]}
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            told = observer.last.groups["trunk"]
            assert told["clip_factor"] == pytest.approx(0.1 / whole.item(), rel=1e-4)
            assert told["grad_norm"] == pytest.approx(nn.utils.get_total_norm(unclipped["trunk"]).item(), rel=1e-5)
    assert observer.step == 2


def test_each_observer_of_several_sees_every_step(tmp_path: Path) -> None:
    model, optimizer = adamw()
    with Observer(optimizer, tmp_path / "a", every=ALL) as one, Observer(optimizer, tmp_path / "b", every=2) as other:
        train(model, optimizer, one, 3)
        assert other.step == 3
    a, b = read(tmp_path / "a"), read(tmp_path / "b")
    assert (list(a.steps), list(b.steps)) == ([0, 1, 2], [0, 2])
    assert a.series("groups", "heads", "grad_norm").values[2] == b.series("groups", "heads", "grad_norm").values[1]


@pytest.mark.parametrize("make", [adamw, grouped])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_a_copy_of_an_observed_optimizer_is_not_observed(make: Any, copied: Any, tmp_path: Path) -> None:
    model, optimizer = make()
    with Observer(optimizer, tmp_path) as observer:
        train(model, optimizer, observer, 1)
        other = copied(optimizer)
        for group in other.param_groups:
            for p in group["params"]:
                p.grad = torch.zeros_like(p) if group["name"] not in ("embed", "frozen") else None
        other.step()
        assert observer.step == 1
        train(model, optimizer, observer, 1)
    assert len(read(tmp_path)) == 2


def test_a_closed_observer_lets_go_of_the_optimizer(tmp_path: Path) -> None:
    model, optimizer = adamw()
    observer = Observer(optimizer, tmp_path)
    train(model, optimizer, observer, 2)
    observer.close()
    observer.close()
    train(model, optimizer, observer, 2)
    assert observer.step == 2
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert [event.event for event in read(tmp_path).events] == ["finished"]


def test_a_run_that_an_exception_ends_is_written_and_not_said_to_be_finished(tmp_path: Path) -> None:
    model, optimizer = adamw()
    with pytest.raises(ZeroDivisionError, match="by zero"), Observer(optimizer, tmp_path) as observer:
        train(model, optimizer, observer, 3)
        _ = 1 / 0
    assert list(read(tmp_path).steps) == [0, 1, 2]
    assert not read(tmp_path).events
    with Observer(optimizer, tmp_path) as observer:
        train(model, optimizer, observer, 1)
    assert [event.event for event in read(tmp_path).events] == ["resumed", "finished"]


def test_a_run_goes_on_in_its_folder_where_it_stopped_or_where_it_is_told(tmp_path: Path) -> None:
    model, optimizer = adamw()
    for given, first in (({}, 0), ({}, 3), ({"step": 4}, 4)):
        with Observer(optimizer, tmp_path, **given) as observer:
            assert observer.step == first
            train(model, optimizer, observer, 3)
    run = read(tmp_path)
    assert list(run.steps) == list(range(7))
    assert [(e.step, e.event) for e in run.events] == [(3, "resumed"), (4, "resumed"), (7, "finished")]


@pytest.mark.parametrize("fused", [False, True])
def test_skips_of_a_grad_scaler_are_events_and_gradients_are_unscaled(fused: bool, tmp_path: Path) -> None:
    model, optimizer = adamw(fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    with Observer(optimizer, tmp_path / "scaled", every=ALL, scaler=scaler, along_path=True):
        for step in range(4):
            optimizer.zero_grad()
            scaler.scale(sum(losses(model, step).values())).backward()
            if step == 1:
                model.left.weight.grad[0, 0] = torch.inf
            scaler.step(optimizer)
            scaler.update()
    model, optimizer = adamw(fused=fused)
    with Observer(optimizer, tmp_path / "plain", every=ALL, along_path=True):
        for step in (0, 2, 3):
            optimizer.zero_grad()
            sum(losses(model, step).values()).backward()
            optimizer.step()
    scaled, plain = read(tmp_path / "scaled"), read(tmp_path / "plain")
    assert [(e.step, e.event) for e in scaled.events] == [(1, "skipped"), (4 if fused else 3, "finished")]
    assert list(scaled.steps) == ([0, 2, 3] if fused else [0, 1, 2])
    for statistic in ("grad_norm", "contribution", "update_norm", "path_contribution"):
        found, expected = (run.series("groups", "heads", statistic).values for run in (scaled, plain))
        first = 1 if fused and statistic == "path_contribution" else 0  # its path ends in what was skipped
        assert list(found) == pytest.approx(list(expected)[first:], rel=1e-5)


def test_a_full_disk_is_said_once_and_training_goes_on(tmp_path: Path) -> None:
    code = f"""
import resource, signal, warnings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from groupwise.observe import Observer
from tests.observe.nets import groups, net, train
import torch
model = net()
optimizer = torch.optim.SGD(groups(model), lr=0.01)
observer = Observer(optimizer, {str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    train(model, optimizer, observer, 40)
    observer.close()
import sys
sys.stdout.write("|".join([str(observer.step), *(str(w.message) for w in said)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps, *said = done.stdout.split("|")
    assert steps == "40"
    assert len(said) == 1
    assert "recording stops at step" in said[0]
    assert 0 < len(read(tmp_path)) < 40


class Reads(TorchDispatchMode):
    """Counts what would make a host wait for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_a_record_is_one_transfer_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    def counted(vector: torch.Tensor) -> HostTransfer:
        sent.append(len(vector))
        return HostTransfer(vector)

    monkeypatch.setattr(drafting, "HostTransfer", counted)
    model, optimizer = grouped()
    with Observer(optimizer, tmp_path, every=ALL, along_path=True) as observer:
        for step in range(3):
            optimizer.zero_grad()
            told = losses(model, step)
            with Reads() as reads:
                observer.tasks(told)
            sum(told.values()).backward()
            observer.log(loss=torch.tensor(1.0), scalars={"other": torch.tensor(2.0)})
            hooks = [*optimizer._optimizer_step_pre_hooks.values(), *optimizer._optimizer_step_post_hooks.values()]
            with Reads() as more:
                hooks[0](optimizer, (optimizer,), {})
            type(optimizer).step.__wrapped__(optimizer)
            with more:
                hooks[1](optimizer, (optimizer,), {})
            assert reads.count + more.count == 0
    assert 0 < len(sent) <= 3


def test_the_observer_needs_no_file(tmp_path: Path) -> None:
    model, optimizer = adamw()
    with Observer(optimizer, None) as observer:
        train(model, optimizer, observer, 1)
    assert observer.last is not None
    assert set(FRESH) <= set(observer.last.groups["trunk"])


def test_a_folder_that_is_being_written_is_refused(tmp_path: Path) -> None:
    _, optimizer = adamw()
    with Observer(optimizer, tmp_path), pytest.raises(RecordError, match="a folder of its own"):
        Observer(optimizer, tmp_path)
    assert not optimizer._optimizer_step_pre_hooks
