"""Every statistic of every group equals its definition, computed one parameter at a time in float64."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groupwise.observe import Observer
from groupwise.observe.gauges import GAUGES
from groupwise.records import Run, read
from tests.observe.nets import ALL, Net, grouped, groups, losses, net
from tests.observe.reference import Camera

Made = tuple[Net, torch.optim.Optimizer]
SPARSE_COSINES = {"embed"}  # the entries of a sparse gradient are others each time: there is no cosine
SPREAD = {"step_size_low", "step_size_high"}


def plain(kind: str, **hyperparameters: object) -> Callable[[], Made]:
    def make() -> Made:
        model = net()
        return model, getattr(torch.optim, kind)(groups(model), **{"lr": 0.01, **hyperparameters})

    return make


OPTIMIZERS: dict[str, Callable[[], Made]] = {
    "AdamW": plain("AdamW", weight_decay=0.1),
    "AdamW, fused": plain("AdamW", fused=True),
    "AdamW, foreach": plain("AdamW", foreach=True),
    "SGD with momentum": plain("SGD", momentum=0.9, nesterov=True),
    "SGD that maximises": plain("SGD", maximize=True),
    "Adagrad": plain("Adagrad"),
    "a learning rate in a tensor": plain("Adam", lr=torch.tensor(0.01)),
    "a plan with SparseAdam and clipping": grouped,
    "a plan without clipping": lambda: grouped(clip=None),
}


def observed(make: Callable[[], Made], folder: Path, steps: int) -> tuple[Run, Camera]:
    model, optimizer = make()
    camera = Camera(optimizer)
    with Observer(optimizer, folder, every=ALL, along_path=True):
        for step in range(steps):
            optimizer.zero_grad()
            sum(losses(model, step).values()).backward()
            camera.step()
    return read(folder), camera


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_statistic_equals_its_definition(name: str, tmp_path: Path) -> None:
    run, camera = observed(OPTIMIZERS[name], tmp_path, steps=4)
    assert list(run.steps) == [0, 1, 2, 3]
    for group in run.names("groups"):
        for step, taken in enumerate(camera.taken):
            previous = camera.taken[step - 1][group] if step else None
            following = camera.taken[step + 1][group] if step < 3 else None
            expected = taken[group].statistics(previous, following)
            if group in SPARSE_COSINES and "plan" in name:
                expected.pop("gradient_cosine", None)
            if "clipping" not in name or "without" in name:
                expected.pop("clip_factor", None)
            found = {
                key: series.values[series.steps.index(step)]
                for key in run.names("groups", group)
                if step in (series := run.series("groups", group, key)).steps and key not in SPREAD
            }
            assert found == pytest.approx(expected, rel=2e-5, abs=1e-9), (group, step)


def test_the_tests_above_cover_every_gauge(tmp_path: Path) -> None:
    run, _ = observed(grouped, tmp_path, steps=2)
    snapshot = {key for group in run.names("groups") for key in run.names("groups", group)}
    elsewhere = {"nonfinite", "activation_rms", "dead_units"}
    assert {gauge.name for gauge in GAUGES} - snapshot == elsewhere


def test_contributions_sum_to_the_first_order_change_of_the_loss(tmp_path: Path) -> None:
    """With small steps, what the groups contribute is what the loss on the same batch goes down by."""
    model = net()
    optimizer = torch.optim.SGD([{**group, "lr": 1e-4} for group in groups(model)])
    with Observer(optimizer, tmp_path, every=ALL) as observer:
        loss = sum(losses(model, 0).values())
        loss.backward()
        optimizer.step()
        fallen = (loss - sum(losses(model, 0).values())).item()
        told = sum(own["contribution"] for own in observer.last.groups.values())
    assert told == pytest.approx(fallen, rel=1e-2)


def test_the_spread_of_step_sizes_lies_around_their_root_mean_square(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(groups(model), lr=0.1)
    with Observer(optimizer, tmp_path, every=ALL) as observer:
        sum(losses(model, 0).values()).backward()
        optimizer.step()
    steps = torch.cat([p.grad.abs().flatten() for p in [*model.left.parameters(), *model.right.parameters()]])
    told, ordered = observer.last.groups["heads"], steps.sort().values
    assert told["step_size_low"] == pytest.approx(float(ordered[round(0.1 * 17)]), rel=1e-4)
    assert told["step_size_high"] == pytest.approx(float(ordered[round(0.9 * 17)]), rel=1e-4)


def test_entries_that_are_not_finite_are_counted_and_told_once(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD([{**group, "lr": 0.0} for group in groups(model)])
    with Observer(optimizer, tmp_path) as observer:
        for bad in (0, 2, 3, 0, 1):
            optimizer.zero_grad()
            model.load_state_dict(net().state_dict())  # 0 times infinity is no number
            sum(losses(model, 0).values()).backward()
            model.left.weight.grad.view(-1)[:bad] = torch.inf
            optimizer.step()
            assert observer.last.groups["heads"].get("nonfinite", 0) == pytest.approx(bad / 18)
    run = read(tmp_path)
    assert [(e.step, e.event) for e in run.events] == [(1, "nonfinite"), (4, "nonfinite"), (5, "finished")]
    assert "heads" in run.events[0].text


def test_half_precision_gradients_do_not_overflow_their_norm(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(4000, dtype=torch.float16))
    optimizer = torch.optim.SGD([weight], lr=1e-3)
    with Observer(optimizer, tmp_path, every=ALL) as observer:
        weight.grad = torch.full_like(weight, 3000.0)
        optimizer.step()
    told = observer.last.groups["group 0"]
    assert told["grad_norm"] == pytest.approx(3000 * 4000**0.5, rel=1e-3)
    assert told["contribution"] == pytest.approx(3000 * 3.0 * 4000, rel=1e-2)


def test_complex_tensors_that_are_empty_and_that_are_not_contiguous_are_measured(tmp_path: Path) -> None:
    torch.manual_seed(0)
    values = [torch.randn(3, dtype=torch.complex64), torch.empty(0, 4), torch.randn(400, 400).T, torch.randn(())]
    params = [torch.nn.Parameter(value) for value in values]
    optimizer = torch.optim.SGD(params, lr=0.1)
    with Observer(optimizer, tmp_path, every=ALL) as observer:
        for _ in range(2):
            before = [p.detach().clone() for p in params]  # of the last step
            for p in params:
                p.grad = torch.randn_like(p)
            optimizer.step()
    after = [p.detach() for p in params]
    moved = sum(float((p - b).abs().square().sum()) for p, b in zip(after, before, strict=True)) ** 0.5
    assert observer.last.groups["group 0"]["update_norm"] == pytest.approx(moved, rel=1e-4)
    zipped = zip(params, after, before, strict=True)
    along = sum(float(torch.real(torch.conj(p.grad) * (b - a)).sum()) for p, a, b in zipped)
    assert observer.last.groups["group 0"]["contribution"] == pytest.approx(along, rel=1e-3)
