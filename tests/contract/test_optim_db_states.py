"""PyTorch's generic optimizer cases on mixed optimizers: states, hooks, copies. Each test names the case."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.testing._internal.common_optimizers import OptimizerInfo

from tests.contract.mixed import DB, MIXED, configurations, plain

infos = pytest.mark.parametrize("info", MIXED, ids=lambda info: info.name)


def given_as(params: list[nn.Parameter], with_names: bool) -> list[Any]:
    return [(f"name{i}", p) for i, p in enumerate(params)] if with_names else params


def stepped(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], seeds: range) -> None:
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def pair(seed: int = 0) -> list[nn.Parameter]:
    torch.manual_seed(seed)
    return [nn.Parameter(torch.randn(2, 3)), nn.Parameter(torch.randn(2))]


def without_names(saved: dict[str, Any]) -> dict[str, Any]:
    groups = [{k: v for k, v in group.items() if k != "param_names"} for group in saved["param_groups"]]
    return copy.deepcopy({"state": saved["state"], "param_groups": groups})


def test_configurations_leave_the_kernel_to_the_test() -> None:
    """PyTorch's `test_optim_infos_do_not_specify_global_cliquey_kwargs`."""
    for info in MIXED:
        assert not {"foreach", "fused", "differentiable"} & {key for given in plain(info) for key in given}


@infos
@pytest.mark.parametrize("names", [False, True])
def test_a_checkpoint_is_the_same_for_equal_parameters(info: OptimizerInfo, names: bool) -> None:
    """PyTorch's `test_state_dict_deterministic`."""
    for given in configurations(info):
        params = pair()
        optimizer = info.optim_cls(given_as(params, names), **given)
        stepped(optimizer, params, range(10))
        others = [nn.Parameter(p.detach().clone()) for p in params]
        twin = info.optim_cls(given_as(others, names), **given)
        twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        stepped(optimizer, params, range(10, 20))
        stepped(twin, others, range(10, 20))
        torch.testing.assert_close(others, params, rtol=0, atol=0)
        first, second = without_names(optimizer.state_dict()), without_names(twin.state_dict())
        torch.testing.assert_close(first["state"], second["state"], rtol=0, atol=0)
        assert first["param_groups"] == second["param_groups"]
        twin.param_groups.extend(twin.param_groups)
        assert without_names(twin.state_dict())["param_groups"][-1] == first["param_groups"][-1]


@infos
def test_a_checkpoint_without_the_newer_flags_loads(info: OptimizerInfo) -> None:
    """PyTorch's `test_can_load_older_state_dict`."""
    for given in configurations(info):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(4, 2, 1, stride=2), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(128, 2))
        params = list(net.parameters())
        optimizer = info.optim_cls(params, **given)
        stepped(optimizer, params, range(3))
        old = copy.deepcopy(optimizer.state_dict())
        for group in old["param_groups"]:
            for flag in info.not_og_supported_flags:
                group.pop(flag, None)
        optimizer.load_state_dict(old)
        stepped(optimizer, params, range(3, 5))


@infos
@pytest.mark.parametrize("names", [False, True])
def test_a_checkpoint_loads_into_a_list_of_the_same_names(info: OptimizerInfo, names: bool) -> None:
    """PyTorch's `test_can_load_from_to_named_state_dict`, where both or neither have names."""
    for given in configurations(info):
        params = pair()
        optimizer = info.optim_cls(given_as(params, names), **given)
        stepped(optimizer, params, range(3))
        twin = info.optim_cls(given_as(params, names), **given)
        twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        stepped(twin, params, range(3, 5))
        kept = [name for group in twin.state_dict()["param_groups"] for name in group["param_names"]]
        assert sorted(kept) == (["name0", "name1"] if names else ["0.0", "0.1"])


@infos
@pytest.mark.parametrize("names", [False, True])
def test_a_checkpoint_is_equal_after_a_file(info: OptimizerInfo, names: bool, tmp_path: Path) -> None:
    """PyTorch's `test_save_load_equality_with_weights_only`."""
    for given in configurations(info):
        params = pair()
        optimizer = info.optim_cls(given_as(params, names), **given)
        stepped(optimizer, params, range(3))
        saved = optimizer.state_dict()
        torch.save(saved, tmp_path / "saved.pt")
        for weights_only in (True, False):
            read = torch.load(tmp_path / "saved.pt", weights_only=weights_only)
            assert read["param_groups"] == saved["param_groups"]
            torch.testing.assert_close(read["state"], saved["state"], rtol=0, atol=0)


@infos
def test_step_counts_that_are_plain_numbers_load(info: OptimizerInfo) -> None:
    """PyTorch's `test_load_nontensor_step`."""
    for given in configurations(info):
        params = pair()
        optimizer = info.optim_cls(params, **given)
        stepped(optimizer, params, range(3))
        saved = copy.deepcopy(optimizer.state_dict())
        for state in saved["state"].values():
            if isinstance(state.get("step"), torch.Tensor):
                state["step"] = state["step"].item()
        optimizer.load_state_dict(saved)
        stepped(optimizer, params, range(3, 4))


def write_test(optimizer: torch.optim.Optimizer) -> None:
    optimizer.state["test"] = 1


def take_test(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    return saved | {"ran": saved["state"].pop("test", None) is not None}


@infos
def test_hooks_around_state_dict(info: OptimizerInfo) -> None:
    """PyTorch's `test_state_dict_pre_hook`, `test_state_dict_post_hook` and `test_state_dict_pre_post_hook`."""
    for given in configurations(info):
        optimizer = info.optim_cls(pair(), **given)
        pre = optimizer.register_state_dict_pre_hook(write_test)
        assert optimizer.state_dict()["state"]["test"] == 1
        pre.remove()
        del optimizer.state["test"]
        optimizer.register_state_dict_post_hook(take_test)
        assert not optimizer.state_dict()["ran"]
        optimizer.register_state_dict_pre_hook(write_test)
        saved = optimizer.state_dict()
        assert saved["ran"]
        assert "test" not in saved["state"]


def set_in_place(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    saved["param_groups"][0]["lr"] = 0.002


def set_in_a_copy(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    mine = copy.deepcopy(saved)
    mine["param_groups"][0]["lr"] = 0.003
    return mine


def note(optimizer: torch.optim.Optimizer) -> None:
    optimizer.state["copied"] = bool(optimizer.param_groups[0]["lr"] == 0.003)
    optimizer.state["done"] = True


@infos
def test_hooks_before_a_load_run_in_their_order(info: OptimizerInfo) -> None:
    """PyTorch's `test_load_state_dict_pre_hook_and_prepend`."""
    for given in configurations(info):
        optimizer = info.optim_cls(pair(), **given)
        saved = optimizer.state_dict()
        optimizer.register_load_state_dict_pre_hook(set_in_place)
        optimizer.load_state_dict(saved)
        assert optimizer.param_groups[0]["lr"] == 0.002
        optimizer.register_load_state_dict_pre_hook(set_in_a_copy, prepend=True)
        optimizer.load_state_dict(saved)
        assert optimizer.param_groups[0]["lr"] == 0.002


@infos
@pytest.mark.parametrize("with_pre", [False, True])
def test_hooks_after_a_load_see_what_was_loaded(info: OptimizerInfo, with_pre: bool) -> None:
    """PyTorch's `test_load_state_dict_post_hook` and `test_load_state_dict_pre_post_hook`."""
    for given in configurations(info):
        optimizer = info.optim_cls(pair(), **given)
        optimizer.register_load_state_dict_post_hook(note)
        if with_pre:
            optimizer.register_load_state_dict_pre_hook(set_in_a_copy)
        optimizer.load_state_dict(optimizer.state_dict())
        assert optimizer.state["done"]
        assert optimizer.state["copied"] is with_pre


@infos
@pytest.mark.parametrize("when", ["pre", "post"])
def test_a_hook_of_the_step_runs_until_it_is_removed(info: OptimizerInfo, when: str) -> None:
    """PyTorch's `test_step_pre_hook` and `test_step_post_hook`."""
    for given in configurations(info):
        optimizer = info.optim_cls([torch.tensor([1.0, 1.0])], **given)
        calls: list[int] = []
        handle = getattr(optimizer, f"register_step_{when}_hook")(lambda *_, calls=calls: calls.append(1))
        optimizer.step()
        optimizer.step()
        handle.remove()
        optimizer.step()
        assert calls == [1, 1]


@infos
def test_global_and_own_hooks_run_in_torchs_order(info: OptimizerInfo) -> None:
    """PyTorch's `test_step_all_hooks`."""
    params = [torch.tensor([1.0, 1.0])]
    for given in configurations(info):
        calls: list[int] = []
        mixed, plain_sgd = info.optim_cls(params, **given), torch.optim.SGD(params)
        handles = [
            register_optimizer_step_pre_hook(lambda *_, calls=calls: calls.append(0)),
            register_optimizer_step_post_hook(lambda *_, calls=calls: calls.append(5)),
            *(one.register_step_pre_hook(lambda *_, calls=calls: calls.append(1)) for one in (mixed, plain_sgd)),
            *(one.register_step_post_hook(lambda *_, calls=calls: calls.append(2)) for one in (mixed, plain_sgd)),
        ]
        for one in (mixed, plain_sgd, mixed):
            one.step()
        for handle in handles:
            handle.remove()
        mixed.step()
        assert calls == [0, 1, 2, 5] * 3


@infos
def test_a_copy_has_every_public_attribute(info: OptimizerInfo) -> None:
    """PyTorch's `test_deepcopy_copies_all_public_attrs`."""
    for given in configurations(info):
        params = pair()
        optimizer = info.optim_cls(params, **given)
        stepped(optimizer, params, range(3))
        public = {name for name in vars(optimizer) if not name.startswith("_")}
        assert public == {name for name in vars(copy.deepcopy(optimizer)) if not name.startswith("_")}


@infos
def test_no_state_is_empty(info: OptimizerInfo) -> None:
    """PyTorch's `test_non_empty_state`."""
    for given in plain(info):
        params = pair()
        optimizer = info.optim_cls(params, **given)
        stepped(optimizer, params, range(1))
        assert len(optimizer.state) == 2
        assert all(len(state) > 0 for state in optimizer.state.values())


@infos
def test_it_can_be_printed(info: OptimizerInfo) -> None:
    """PyTorch's `test_optimizer_can_be_printed`."""
    for given in configurations(info):
        assert repr(info.optim_cls(pair(), **given)).startswith(f"{info.name} (")


def test_the_shims_stand_in_the_database_without_changing_it() -> None:
    assert not {info.name for info in MIXED} & set(DB)


@infos
def test_a_fused_step_on_meta_is_refused_in_torchs_words(info: OptimizerInfo) -> None:
    """PyTorch's `test_fused_error_on_params_on_meta`."""
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1))
    optimizer = info.optim_cls(net.parameters(), fused=True)
    for p in net.parameters():
        p.grad = torch.empty_like(p)
    with pytest.raises(RuntimeError, match="`fused=True` requires all the params to be floating point Tensors"):
        optimizer.step()
    optimizer.zero_grad()
    net.to_empty(device="cpu")
    optimizer.step()
