"""A probe says what short runs bear out, changes nothing of what it was given, and its advice is a part of a plan."""

import functools
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import groupwise
from groupwise import GroupedOptimizer, Plan, Rule, clip_norm, exact, scale
from groupwise.errors import GroupwiseError, ProbeError
from groupwise.probing import ProbeResult
from groupwise.probing.batches import Batches
from groupwise.probing.single import single_of
from groupwise.schedules import cosine

STEPS = 240
LAMBDAS = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)


class Quadratic(nn.Module):
    """1/2 sum λ w²: under SGD stable up to a rate of 2 / max λ, and not beyond."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(5, dtype=torch.float64))


def curved(model: Quadratic, batch: object) -> Tensor:
    return (LAMBDAS * model.w.square()).sum() / 2


class Norms(nn.Module):
    """What has state besides weights: running statistics, dropout, a counter, a part in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(16, 3)
        self.fixed = nn.BatchNorm1d(3).eval()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.fixed(self.head(self.trunk(x)))


def classified(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def batches(count: int = 40, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, size, 6, generator=generator)
    return [(rows, rows[:, :3].argmax(1)) for rows in x]


def adamw(lr: float = 1e-3, *more: Rule, **options: Any) -> Plan:
    return Plan([Rule("*", optimizer="AdamW", lr=lr), *more], **options)


def probed(model: Any = None, plan: Plan | None = None, data: Any = None, **options: Any) -> ProbeResult:
    torch.manual_seed(0)
    settings = {"loss": classified, "total_steps": STEPS, "budget": 1.2, **options}
    return groupwise.probe(Norms() if model is None else model, plan or adamw(), data or batches(), **settings)


# the rate


@pytest.mark.parametrize("lr", [1e-3, 0.02, 0.09, 1.0])
def test_the_bracket_of_stable_rates_holds_the_closed_form_of_a_quadratic(lr: float) -> None:
    found = probed(Quadratic(), Plan([Rule("*", optimizer="SGD", lr=lr)]), [None], loss=curved)
    low, high = found.rates.stable
    assert high is not None
    assert low * lr <= 2 / 16 <= high * lr


def test_advice_on_a_rate_that_is_far_too_low_lowers_the_loss_of_the_whole_run() -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=1e-4)])
    found = probed(Quadratic(), plan, [None], loss=curved)
    assert found.rates.verdict == "change"
    ends = []
    for each in (plan, found.plan):
        model = Quadratic()
        optimizer = GroupedOptimizer(model, each)
        for _ in range(STEPS):
            optimizer.zero_grad()
            curved(model, None).backward()
            optimizer.step()
        ends.append(curved(model, None).item())
    assert ends[1] < 0.1 * ends[0]


def test_a_rate_that_diverges_is_an_error_among_the_findings_and_is_lowered() -> None:
    found = probed(Quadratic(), Plan([Rule("*", optimizer="SGD", lr=1.0)]), [None], loss=curved)
    assert [finding.severity for finding in found.findings if finding.check == "unstable"] == ["error"]
    assert found.rates.verdict == "change"
    assert found.rates.advised < 2 / 16


def test_the_plan_is_kept_where_nothing_beats_it() -> None:
    """The gradient is noise: no rate is better than another."""

    def noise(model: nn.Module, batch: object) -> Tensor:
        return 10 + (next(model.parameters()) * torch.randn(())).sum() * 1e-3

    found = probed(nn.Linear(1, 1, bias=False), adamw(1e-9), [None], loss=noise)
    assert found.rates.verdict in ("keep", "withheld")
    assert found.patch == ""
    assert found.plan == adamw(1e-9)


@pytest.mark.parametrize("lr", [1e-5, 1e-3])
def test_a_probe_of_what_was_advised_keeps_it(lr: float) -> None:
    first = probed(plan=adamw(lr))
    assert first.rates.verdict == "change"
    second = probed(plan=first.plan)
    assert second.rates.verdict == "keep"
    assert second.patch == ""
    assert "says little of a whole run" not in second.words[0]


def test_a_cost_is_not_above_the_budget() -> None:
    for budget in (1.2, 1.5, 3.0):
        assert 0.5 * budget < probed(budget=budget).cost <= 1.05 * budget


def test_equal_probes_find_the_same() -> None:
    assert str(probed()) == str(probed())


def test_schedules_are_compressed_whatever_the_unit_of_their_lengths() -> None:
    """A warmup over half of the run is half of a short run, said in per cent, in updates or in epochs."""
    found = [
        probed(plan=adamw(cosine(1e-2, warmup=length)), steps_per_epoch=STEPS // 4)
        for length in ("50%", groupwise.steps(STEPS // 2), groupwise.epochs(2))
    ]
    losses = [[trial.losses for runs in each.rounds[1].runs.values() for trial in runs] for each in found]
    assert losses[0] == losses[1] == losses[2]


# the patch


def test_a_patch_is_added_to_the_plan_as_a_plan_of_its_own() -> None:
    plan = adamw(1e-5, Rule("head.*", lr=scale(2.0)), clip=clip_norm(1.0))
    found = probed(plan=plan)
    assert found.rates.verdict == "change"
    assert plan + Plan.loads(found.patch) == found.plan
    assert found.plan.clip == plan.clip
    before, after = (GroupedOptimizer(Norms(), each).param_groups for each in (plan, found.plan))
    for old, new in zip(before, after, strict=True):
        assert new["lr"] == pytest.approx(old["lr"] * found.rates.advised)


def test_a_file_of_a_plan_with_its_patch_says_the_same() -> None:
    found = probed(plan=adamw(1e-5))
    assert Plan.loads(found.plan.dumps()) == found.plan


def test_a_plan_that_is_added_has_the_last_word_on_clip_values_and_weights() -> None:
    one = Plan([Rule("*", lr=1.0)], clip_norm(1.0), {"a": cosine(1.0), "b": cosine(1.0)}, {"method": "CAGrad"})
    other = Plan([Rule("x", lr=2.0)], None, {"b": cosine(2.0)}, {"weights": {"t": 1.0}}, {"x": 1})
    both = one + other
    assert both.rules == one.rules + other.rules
    assert both.clip == one.clip
    assert dict(both.values) == {"a": cosine(1.0), "b": cosine(2.0)}
    assert both.balance == {"weights": {"t": 1.0}}
    assert dict(both.depth) == {"x": 1}


# what is left untouched


def everything(model: nn.Module) -> list[Any]:
    tensors = [*model.parameters(), *model.buffers()]
    kept: list[Any] = [tensor.detach().clone() for tensor in tensors]
    kept += [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    kept += [[module.training for module in model.modules()], model.calls]
    return [*kept, torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()]


def same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def breaking(error: BaseException, at: int) -> Callable[[nn.Module, Any], Tensor]:
    calls = 0

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == at:
            raise error
        random.random(), np.random.rand()
        return classified(model, batch)

    return loss


@pytest.mark.parametrize("error", [None, RuntimeError("full"), KeyboardInterrupt()], ids=["done", "error", "interrupt"])
@pytest.mark.parametrize("at", [1, 9, 60])
def test_nothing_that_was_given_is_changed(error: BaseException | None, at: int) -> None:
    model, own = Norms(), torch.Generator().manual_seed(7)
    model.train()
    model.fixed.eval()
    classified(model, batches()[0]).backward()
    hooked: list[Any] = []
    handle = model.register_forward_hook(lambda *_: hooked.append(1))
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.randn(64, 6), torch.randint(3, (64,))), 16, shuffle=True, generator=own
    )
    before, order = everything(model), own.get_state()
    hooks = dict(model._forward_hooks)
    plan = adamw()
    loss = breaking(error or ValueError(), at if error else -1)
    if error is None:
        groupwise.probe(model, plan, data, loss=loss, total_steps=STEPS, budget=1.2)
    else:
        with pytest.raises(type(error), match=r"full|^$"):
            groupwise.probe(model, plan, data, loss=loss, total_steps=STEPS, budget=1.2)
    assert all(map(same, before, everything(model)))
    assert torch.equal(order, own.get_state())
    assert dict(model._forward_hooks) == hooks
    handle.remove()


class Wrapped:
    """Something around a DataLoader, as Accelerate and Lightning have it."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


@pytest.mark.parametrize(
    "given",
    [
        Wrapped,
        lambda loader: lambda: loader,
        lambda loader: lambda seed: Wrapped(loader),
        lambda loader: functools.partial(Wrapped, loader),
        lambda loader: loader.__iter__,
    ],
    ids=["wrapped", "function", "function of a wrapped one", "partial", "method"],
)
def test_the_generator_of_a_loader_is_found_where_something_is_around_it(given: Callable[[Any], Any]) -> None:
    own = torch.Generator().manual_seed(7)
    tensors = torch.utils.data.TensorDataset(torch.randn(64, 6), torch.randint(3, (64,)))
    loader = torch.utils.data.DataLoader(tensors, 16, shuffle=True, generator=own)
    data = given(loader)
    before, orders = own.get_state(), set[bytes]()
    for state in (1, 2):
        batches_of = Batches(data)
        own.manual_seed(state)
        for generator in batches_of.generators():
            generator.manual_seed(5)
        torch.manual_seed(0)
        orders.add(next(batches_of.take(5, 1))[0].numpy().tobytes())
    own.set_state(before)
    probed(data=data)
    assert torch.equal(own.get_state(), before)
    assert len(orders) == 1  # all contestants of a seed see the same batches


def test_a_loss_that_writes_into_the_model_outside_is_undone() -> None:
    model = Norms()
    before = everything(model)

    def loss(copy: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        with torch.no_grad():
            model.head.weight.mul_(2)
            model.trunk[1].running_mean.add_(1)
        return classified(copy, batch)

    groupwise.probe(model, adamw(), batches(), loss=loss, total_steps=STEPS, budget=1.2)
    assert all(map(same, before, everything(model)))


# what can be given


def stream() -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from batches()


@pytest.mark.parametrize(
    "data", [batches, lambda: iter(batches(200)), lambda: stream, lambda: lambda seed: batches(40 + seed % 2), stream]
)
def test_batches_have_many_forms(data: Callable[[], Any]) -> None:
    assert probed(data=data()).cost > 0


def test_what_an_iterator_has_lost_is_said() -> None:
    given = stream()
    found = probed(data=given)
    assert any("iterator" in word and "used up" in word for word in found.words)
    assert not any("iterator" in word for word in probed().words)


def test_each_seed_of_a_factory_has_weights_of_its_own() -> None:
    starts = {
        runs[0].seed: tuple(runs[0].start[0].values()) for found in probed(Norms).rounds for runs in found.runs.values()
    }
    assert len(set(starts.values())) == len(starts) == 2


def test_networks_by_name_are_a_model() -> None:
    parts = nn.ModuleDict({"a": nn.Linear(6, 8), "b": nn.Linear(8, 3)})

    def loss(model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model["b"](model["a"](batch[0]).relu()), batch[1])

    assert {part.name for part in probed(dict(parts), loss=loss).seen.layers} >= {"a", "b"}


# several tasks


class TwoTasks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.loud, self.quiet = nn.Linear(6, 8), nn.Linear(8, 1), nn.Linear(8, 3)


def both(model: TwoTasks, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    features = model.trunk(batch[0]).tanh()
    loud = 1e4 * (model.loud(features)[:, 0] - batch[0].sum(1)).square().mean()
    return {"loud": loud, "quiet": nn.functional.cross_entropy(model.quiet(features), batch[1])}


def test_a_task_that_drowns_the_other_is_named_and_weights_are_one_over_the_first_losses() -> None:
    plan = Plan([Rule("*", optimizer="SGD", lr=1e-5)])
    found = probed(TwoTasks(), plan, loss=both, total_steps=400, budget=1.5)
    loud, quiet = found.seen.tasks
    assert loud.share > 0.9 > quiet.share
    assert any("'loud' has" in word for word in found.words)
    assert found.weights["loud"] / found.weights["quiet"] == pytest.approx(quiet.loss / loud.loss, rel=0.5)
    plain, weighted = (
        sum(w * t.loss for w, t in zip(ws, (loud, quiet), strict=True))
        for ws in ((1, 1), (found.weights["loud"], found.weights["quiet"]))
    )
    assert weighted == pytest.approx(plain, rel=0.5)
    assert Plan.loads(found.patch).balance == {"weights": found.weights}
    assert plan + Plan.loads(found.patch) == found.plan


def test_a_plan_that_balances_is_left_its_method() -> None:
    plan = Plan([Rule("*", optimizer="AdamW", lr=1e-3)], balance={"method": "CAGrad", "c": 0.4})
    found = probed(TwoTasks(), plan, loss=both)
    assert found.weights == {}
    assert found.plan.balance == plan.balance


# findings


def test_what_does_not_train_is_found() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.dead, self.orphan = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x) + 0.0 * self.dead(x)

    found = probed(Half(), adamw(1e-3, Rule("dead.*", label="dead", weight_decay=0.0)))
    assert any("orphan" in name for finding in found.findings for name in finding.parameters)
    assert [f.severity for f in found.findings if f.check == "dead"] == ["error"]


def test_a_joint_clip_that_one_group_fills_is_found() -> None:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return classified(model, batch) + 1e3 * model.head.bias.sum().square() + 1e3 * model.head.bias.sum()

    plan = adamw(1e-4, Rule("head.bias", label="loud", weight_decay=0.0), clip=clip_norm(1.0))
    found = probed(plan=plan, loss=loss)
    assert any(f.check == "starved" and "'loud'" in f.message for f in found.findings)


def test_a_healthy_program_has_no_findings() -> None:
    plan = Plan([Rule("*", optimizer="AdamW", lr=1e-3, weight_decay=0.0)])
    assert probed(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), plan).findings == ()


def test_an_exact_rate_is_multiplied_as_well() -> None:
    plan = adamw(1e-5, Rule("head.*", lr=exact(1e-5)))
    rates = {group["lr"] for group in GroupedOptimizer(Norms(), probed(plan=plan).plan).param_groups}
    assert all(rate > 1e-5 for rate in rates)


# rules on their own


def test_one_rate_is_said_to_be_enough_where_parts_do_not_differ() -> None:
    plan = adamw(1e-2, Rule("head.*", lr=scale(1.0001)))
    found = probed(plan=plan, budget=4.0)
    assert found.parts == {}
    assert any("one rate is enough here" in word for word in found.words)


def test_a_rule_whose_rate_is_far_too_low_beside_the_others_is_raised() -> None:
    """The second weight can only learn at 1000 times the rate that it has beside the first.

    One AdamW would do for both; a table with sparse gradients keeps it from being tried.
    """

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steep, self.flat = (nn.Parameter(torch.ones(4, dtype=torch.float64)) for _ in range(2))
            self.table = nn.Embedding(2, 1, sparse=True)

    def loss(model: Two, batch: object) -> Tensor:
        still = 0 * model.table(torch.tensor([0])).sum()
        return (model.steep.square().sum() + 1e-2 * model.flat.square().sum()) / 2 + still

    plan = Plan([Rule("*", optimizer="SGD", lr=0.3), Rule("flat", lr=scale(1.0))])
    found = probed(Two(), plan, [None], loss=loss, budget=6.0)
    assert found.parts["flat"] > 1


# resuming


def test_a_probe_that_was_interrupted_goes_on_and_finds_the_same(tmp_path: Path) -> None:
    file = tmp_path / "probe.json"
    torch.manual_seed(0)
    whole = groupwise.probe(Norms(), adamw(), batches(), loss=classified, total_steps=STEPS, budget=1.2)
    torch.manual_seed(0)
    model = Norms()
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        groupwise.probe(
            model, adamw(), batches(), loss=breaking(KeyboardInterrupt(), 120), total_steps=STEPS, budget=1.2, save=file
        )
    assert file.stat().st_size > 1000
    calls = 0

    def counted(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        nonlocal calls
        calls += 1
        return classified(model, batch)

    again = groupwise.probe(model, adamw(), batches(), loss=counted, total_steps=STEPS, budget=1.2, save=file)
    assert str(again) == str(whole)
    done, calls = calls, 0
    groupwise.probe(model, adamw(), batches(), loss=counted, total_steps=STEPS, budget=1.2)
    assert done < calls


def test_the_file_of_another_probe_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "probe.json"
    probed(save=file)
    with pytest.raises(ProbeError, match="another probe"):
        probed(save=file, plan=adamw(2e-3))
    file.write_text("{")
    with pytest.raises(ProbeError, match="not the file of a probe"):
        probed(save=file)


# what is refused


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": 3}, "model is a torch.nn.Module"),
        ({"model": nn.ReLU()}, "no parameters"),
        ({"model": nn.LazyLinear(3)}, "run one batch through the lazy module first"),
        ({"model": lambda: nn.LazyLinear(3)}, "run one batch through the lazy module first"),
        ({"model": nn.Linear(6, 3).requires_grad_(False)}, "no parameter trains|no graph"),
        ({"loss": lambda model: 0}, r"loss\(model, batch\)"),
        ({"loss": lambda model, batch: model(batch[0])}, "one number: reduce it"),
        ({"loss": lambda model, batch: 1.0}, "no tensor"),
        ({"loss": lambda model, batch: {}}, "empty mapping"),
        ({"loss": lambda model, batch: {"a": 1.0}}, "task 'a': it gave 1.0"),
        ({"loss": lambda model, batch: classified(model, batch).detach()}, "no graph"),
        ({"data": iter(batches(3))}, r"ended after 3, and \d+ are needed"),
        ({"data": 7}, "batches are a list"),
        ({"data": {"x": 1}}, "batches are a list"),
        ({"data": lambda a, b: 0}, "needs 2 arguments"),
        ({"data": lambda: iter(())}, "gave no batch"),
        ({"total_steps": 0}, "total_steps is the number"),
        ({"budget": 0.01}, r"too small to tell rates apart: [\d.]+ are the least"),
        ({"budget": math.nan}, "budget is a multiple"),
    ],
)
def test_what_cannot_be_probed_is_refused_with_the_reason(change: dict[str, Any], match: str) -> None:
    with pytest.raises(GroupwiseError, match=match):
        probed(**change)


def test_a_loss_over_the_model_outside_is_refused() -> None:
    outside = Norms()
    with pytest.raises(ProbeError, match="which is a copy, and not the one outside"):
        probed(loss=lambda model, batch: classified(outside, batch))


def test_the_least_budget_that_is_named_is_enough() -> None:
    with pytest.raises(ProbeError, match="too small") as refused:
        probed(budget=0.2)
    least = float(str(refused.value).rpartition("apart: ")[2].split()[0])
    assert probed(budget=least).cost <= 1.1 * least


def test_a_class_that_refuses_a_parameter_says_so() -> None:
    with pytest.raises(GroupwiseError, match="Muon"):
        probed(plan=Plan([Rule("*", optimizer="Muon", lr=1e-3)]))


# what is shown


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_picture_is_a_file(tmp_path: Path, suffix: str) -> None:
    found = probed()
    found.plot(tmp_path / f"a{suffix}")
    assert (tmp_path / f"a{suffix}").stat().st_size > 5000
    with pytest.raises(ProbeError, match="suffix of a picture"):
        found.plot(tmp_path / "a.pdf")


def test_a_result_is_words_then_tables_and_html_is_escaped() -> None:
    model = nn.ModuleDict({"<b>": nn.Linear(6, 3)})
    found = probed(model, loss=lambda model, batch: nn.functional.cross_entropy(model["<b>"](batch[0]), batch[1]))
    assert str(found).startswith("Rates: ")
    assert "<b>" not in found._repr_html_().replace("<body>", "")
    assert repr(found).startswith("ProbeResult(")


# one AdamW in the plan's place


def sgd(lr: float, *more: Rule, **options: Any) -> Plan:
    return Plan([Rule("*", label="base", optimizer="SGD", lr=lr), *more], **options)


class Scales(nn.Module):
    """Weights whose gradients differ by a factor of 1e6: no rate of SGD serves both, one of Adam does."""

    def __init__(self) -> None:
        super().__init__()
        self.steep, self.flat = (nn.Parameter(torch.ones(4, dtype=torch.float64)) for _ in range(2))


def scaled(model: Scales, batch: object) -> Tensor:
    return (1e3 * model.steep.square().sum() + 1e-3 * model.flat.square().sum()).sqrt() + model.flat.abs().mean()


def test_one_adamw_is_advised_where_it_ends_lower_at_the_same_cost() -> None:
    plan = sgd(1e-4, Rule("flat", label="slow", lr=scale(0.5)), clip=clip_norm(100.0))
    found = probed(Scales(), plan, [None], loss=scaled, total_steps=400, budget=1.5)
    assert found.rates.single > 0
    assert found.words[0].startswith(f"Rates: take one AdamW at lr={found.rates.single:g}")
    assert found.plan == Plan.loads(found.patch)
    (group,) = GroupedOptimizer(Scales(), found.plan).param_groups
    assert (group["algorithm"], group["lr"]) == ("AdamW", found.rates.single)
    assert found.plan.clip == plan.clip
    ends = []
    for each in (plan, found.plan):
        model = Scales()
        optimizer = GroupedOptimizer(model, each)
        for _ in range(400):
            optimizer.zero_grad()
            scaled(model, None).backward()
            optimizer.step()
        ends.append(scaled(model, None).item())
    assert ends[1] < ends[0]
    assert found.cost <= 1.5


def test_a_plan_that_is_one_adamw_is_not_tried_against_it() -> None:
    found = probed(plan=adamw(1e-5, Rule("head.*", weight_decay=0.0)))
    assert found.rates.challenger == 0
    assert not any("AdamW" in word for word in found.words)


def test_one_adamw_is_not_tried_on_sparse_gradients() -> None:
    table = nn.EmbeddingBag(8, 3, sparse=True)
    plan = Plan([Rule("*", optimizer="SparseAdam", lr=1e-3)])
    data = [(torch.randint(8, (16, 2)), torch.randint(3, (16,))) for _ in range(20)]
    assert probed(table, plan, data).rates.challenger == 0


def test_one_adamw_keeps_what_the_plan_says_besides_rates() -> None:
    course = cosine(0.1, warmup="5%")
    plan = Plan(
        [
            Rule("*", label="base", optimizer="SGD", lr=course, momentum=0.9, clip=clip_norm(1.0)),
            Rule("trunk.*", label="frozen", trainable=groupwise.after("50%"), lr=scale(0.1)),
            Rule("head.*", label="head", lr=scale(2.0)),
        ],
        values={"teacher": cosine(1.0)},
    )
    resolution = GroupedOptimizer(Norms(), plan).resolution
    single = single_of(resolution, [])
    assert single is not None
    assert single.near is None
    made = single.plan(plan, 3e-3)
    assert [rule.label for rule in made.rules] == ["one AdamW", "base", "frozen"]
    assert made.rules[0].hyperparameters["lr"] == cosine(3e-3, warmup="5%")
    assert made.values == plan.values
    groups = GroupedOptimizer(Norms(), made).resolution.groups
    assert {group.algorithm for group in groups} == {"AdamW"}
    assert sum(group.timeline is not None for group in groups) == 1
    assert all(group.clip is not None for group in groups)


@pytest.mark.parametrize("course", [0.3, cosine(0.3, end=0.03), cosine(0.3, warmup="10%").scaled(0.5)])
def test_one_adamw_has_the_course_of_the_plans_rate(course: Any) -> None:
    resolution = GroupedOptimizer(Norms(), sgd(course)).resolution
    single = single_of(resolution, [])
    assert single is not None
    lr = single.plan(sgd(course), 1e-3).rules[0].hyperparameters["lr"]
    if isinstance(course, float):
        assert lr == 1e-3
    else:
        ratios = {round(lr.at(step, 100) / course.at(step, 100), 9) for step in (0, 3, 50, 90)}
        assert ratios == {round(1e-3 / course.highest, 9)}


def test_that_short_runs_hardly_lowered_the_loss_is_said_where_the_plan_is_kept() -> None:
    def flat(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return classified(model, batch) + 1e3

    kept = probed(nn.Linear(6, 3), adamw(1e-2), loss=flat)
    assert kept.rates.verdict == "keep"
    assert "which says little of a whole run" in kept.words[0]
