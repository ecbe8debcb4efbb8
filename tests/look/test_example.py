"""What may be given as an example, what is refused, and where what was seen goes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

from groupwise import Plan, Rule, layer_decay
from groupwise.audit import audit
from groupwise.errors import ResolutionError, SelectorError
from groupwise.look import parameters_of
from groupwise.optim import GroupedOptimizer, resolve
from groupwise.select import ParameterInfo
from tests.look.networks import Network, Spec, plain

X = torch.ones(2, 4)


class Chain(nn.Module):
    """Layers whose order of registration is not that of use; one of them is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first, self.spare, self.middle = (
            nn.Linear(8, 2),
            nn.Linear(4, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 8),
        )

    def forward(self, x: torch.Tensor, times: int = 1) -> torch.Tensor:
        """Logits."""
        x = self.first(x).relu()
        for _ in range(times):
            x = self.middle(x).relu()
        out: torch.Tensor = self.last(x)
        return out


def depths(infos: tuple[ParameterInfo, ...]) -> dict[str, int]:
    return {
        info.name.removesuffix(".weight"): info.depth for info in infos if info.ndim == 2 and "spare" not in info.name
    }


@pytest.mark.parametrize(
    "example",
    [X, (X,), (X, 2), {"x": X, "times": 2}, lambda model: model(X), lambda model: model(X).sum()],
    ids=["tensor", "tuple", "arguments", "keywords", "function", "loss"],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_every_form_of_example_shows_the_same(example: Any, device: str) -> None:
    infos = parameters_of(Chain().to(device), example=example)
    assert depths(infos) == {"first": 1, "middle": 2, "last": 3}
    assert {info.name for info in infos if "head" in info.roles} == {"last.weight", "last.bias"}


@pytest.mark.parametrize("example", [[X], 3, "x", nn.Linear(2, 2), nn.Linear])
def test_another_form_is_refused(example: Any) -> None:
    with pytest.raises(SelectorError, match="example= takes a tensor, a tuple of arguments, a dict"):
        parameters_of(Chain(), example=example)


def test_a_mapping_of_networks_takes_a_function() -> None:
    networks = {"g": nn.Linear(4, 4), "d": nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))}
    with pytest.raises(SelectorError, match="a mapping of networks has no forward of its own"):
        parameters_of(networks, example=X)
    infos = parameters_of(networks, example=lambda nets: nets["d"](nets["g"](X)))
    heads = [info.name for info in infos if "head" in info.roles]
    assert heads == ["g.weight", "g.bias", "d.2.weight", "d.2.bias"], "each network has its own"


class ByValue(nn.Module):
    """A forward that leaves torch, and that therefore needs values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        out: torch.Tensor = self.last(torch.from_numpy(self.first(x).detach().numpy() ** 2))
        return out


def test_what_cannot_run_on_meta_runs_where_it_lives_and_what_lives_there_is_refused_with_the_way_out() -> None:
    infos = parameters_of(ByValue(), example=X)
    assert str(infos[0].basis) == "seen in a forward on cpu"
    assert depths(infos) == {"first": 1, "last": 2}, "what comes back from outside of torch depends on what left it"
    with pytest.raises(SelectorError, match=r"cannot be run on it: on meta.*give a tiny real input; without example="):
        parameters_of(ByValue().to("meta"), example=X)


def test_what_the_forward_raises_is_told() -> None:
    with pytest.raises(SelectorError, match=r"example: the model cannot be run on it: on cpu.*mat1 and mat2 shapes"):
        parameters_of(Chain(), example=torch.ones(2, 5))


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.filterwarnings("ignore")
def test_a_sharded_model_is_refused_and_one_that_is_only_wrapped_is_not() -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel as Wrapped
    from torch.distributed.fsdp import ShardingStrategy, fully_shard

    mesh, cpu = dist.init_device_mesh("cpu", (1,)), torch.device("cpu")
    with pytest.raises(SelectorError, match=r"'last.weight' is sharded \(a DTensor\): look before sharding"):
        parameters_of(fully_shard(Chain(), mesh=mesh), example=X)
    with pytest.raises(SelectorError, match=r"holds many parameters, flattened \(FSDP\): look before sharding"):
        parameters_of(Wrapped(Chain(), device_id=cpu), example=X)
    whole = Wrapped(Chain(), use_orig_params=True, device_id=cpu)
    assert depths(parameters_of(whole, example=X)) == {"first": 1, "middle": 2, "last": 3}
    whole.sharding_strategy = ShardingStrategy.FULL_SHARD
    with pytest.raises(SelectorError, match=r"is sharded \(FullyShardedDataParallel, FULL_SHARD\)"):
        parameters_of(whole, example=X)


def test_what_is_stated_overrides_what_was_seen() -> None:
    infos = parameters_of(
        Chain(), roles={"head": "middle"}, tags={"mine": "first.*"}, depth={"last": 7}, example=X
    )  # fmt: skip
    assert {info.name for info in infos if "head" in info.roles} == {"middle.weight", "middle.bias"}
    assert depths(infos) == {"first": 1, "middle": 2, "last": 7}


def test_table_and_explanation_say_what_was_seen_and_what_was_guessed() -> None:
    plan = Plan([Rule("*", optimizer="AdamW", lr=1e-3)])
    resolution = resolve(Chain(), plan, example=X)
    assert (
        "roles and depth: 6 of 8 tensors seen in a forward on the meta device; 2 guessed, unused by the example "
        "(spare.weight, spare.bias)"
    ) in str(resolution)
    assert "roles and depth: seen in a forward on the meta device" in str(resolution.explain("first.weight"))
    assert "roles and depth: guessed, unused by the example" in str(resolution.explain("spare.bias"))
    assert "roles and depth" not in str(resolve(Chain(), plan))


def test_an_optimizer_is_built_on_what_an_example_shows_and_says_when_a_regroup_forgets_it() -> None:
    model = Chain()
    plan = Plan([Rule("*", optimizer="SGD", lr=1.0), Rule("*", lr=layer_decay(0.5))])
    optimizer = GroupedOptimizer(model, plan, example=X)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
    assert (rates["first.weight"], rates["middle.weight"], rates["last.weight"]) == (0.25, 0.5, 1.0)
    with pytest.warns(match="were seen in a forward before, and are guessed from names now: give example="):
        optimizer.regroup(model=model)
    with pytest.raises(ResolutionError, match="example= is for a model, and these are infos"):
        GroupedOptimizer(parameters_of(model), plan, example=X)


def test_the_audit_tells_what_the_example_does_not_use() -> None:
    model = Chain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (finding,) = [found for found in audit(model, optimizer, example=X) if found.check == "unreached"]
    assert finding.parameters == ("spare.weight", "spare.bias")
    assert "in the example no operation uses" in finding.message


@pytest.mark.parametrize("length", [2, 5])
def test_a_decay_by_layer_over_what_was_seen_is_the_published_recipe(length: int) -> None:
    """BEiT: decay^(layers + 1 - level), embeddings at level 0, the head at the top with the full rate."""
    model = Network(Spec(towers=(length,)), plain)
    plan = Plan([Rule("*", optimizer="SGD", lr=1.0), Rule("*", lr=layer_decay(0.75))])
    ids = torch.zeros(1, 5, dtype=torch.long)
    resolution = resolve(model, plan, example=ids)
    rates = {info.name: group.settings["lr"].peak for group in resolution.groups for info in group.parameters}
    for name, rate in rates.items():
        first, _, rest = name.partition(".")
        level = (
            int(rest.partition(".")[0]) + 1 if first == "tower0" else 0 if first in ("table", "place") else length + 1
        )
        assert rate == pytest.approx(0.75 ** (length + 1 - level)), name


class Skipping(nn.Module):
    """Layers that a run skips at random."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features."""
        for layer in self.body:
            x = layer(x) if torch.rand(()) > 0.5 else x
        return x


def test_what_one_run_skips_another_shows() -> None:
    torch.manual_seed(0)
    infos = parameters_of(Skipping(), example=X)
    assert {info.depth for info in infos if info.name.startswith("body.3")} == {4}
    assert all(info.basis is not None and not info.basis.guessed for info in infos)


def lora(model: nn.Module) -> nn.Module:
    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.rand(2, 4)), nn.Parameter(torch.rand(8, 2))

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight + self.b @ self.a

    nn.utils.parametrize.register_parametrization(model.first, "weight", LowRank())
    return model


def weight_normed(model: nn.Module) -> nn.Module:
    nn.utils.parametrizations.weight_norm(model.first)
    return model


def compiled(model: nn.Module) -> nn.Module:
    model.middle = torch.compile(model.middle, backend="eager")
    return model


def stored_in_bytes(model: nn.Module) -> nn.Module:
    class Scaled(nn.Module):
        """Whole numbers, and one scale for each row."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8, 4, dtype=torch.int8), requires_grad=False)
            self.scale = nn.Parameter(torch.ones(8, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale)

    model.first = Scaled()
    return model


def checkpointed(model: nn.Module) -> nn.Module:
    class Again(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> Any:
            return checkpoint(self.inner, x, use_reentrant=True)

    model.first = Again(model.first)
    return model


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("alter", [lora, weight_normed, compiled, stored_in_bytes, checkpointed, nn.DataParallel])
def test_what_surrounds_a_weight_or_a_layer_is_seen_through(alter: Callable[[nn.Module], nn.Module]) -> None:
    infos = parameters_of(alter(Chain()), example=X)
    found = {info.name: (info.depth, info.roles & {"matrix", "head", "scalar"}) for info in infos if info.ndim == 2}
    assert found["last.weight"] == (3, {"head"})
    assert found["middle.weight"] == (2, {"matrix"})
    roles = {name: roles for name, (_, roles) in found.items() if name.startswith("first")}
    lengths = {name for name in roles if name.endswith(("original0", "scale"))}
    assert all(roles[name] == ({"scalar"} if name in lengths else {"matrix"}) for name in roles)
    assert {depth for name, (depth, _) in found.items() if name.startswith("first")} == {1}
