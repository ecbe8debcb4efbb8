"""Roles and depth of networks whose structure is known, whatever their parts are called."""

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from groupwise.look import parameters_of
from tests.look.networks import Names, Network, Spec, expected, noise, plain, specs

IDS = torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(0))


def seen(spec: Spec, names: Names) -> dict[str, tuple[int, frozenset[str]]]:
    """Level and roles of what was reached; names of experts and routers are still read, so those two are left out."""
    infos = parameters_of(Network(spec, names), example=IDS)
    return {i.name: (i.depth, i.roles - {"router", "expert"}) for i in infos if i.basis and not i.basis.guessed}


@settings(max_examples=25)
@given(specs, st.integers(0, 2**16))
@example(Spec(towers=(1,), heads=0), 0)
@example(Spec(towers=(2, 3), trunk=2, heads=2, tied=True, copy=6, bare=True, spare=True), 1)
def test_roles_and_depth_are_those_of_the_structure_whatever_the_names(spec: Spec, seed: int) -> None:
    names = noise(seed)
    assert seen(spec, plain) == expected(spec, plain)
    assert seen(spec, names) == expected(spec, names)


@settings(max_examples=10)
@given(specs)
def test_what_no_operation_uses_is_said(spec: Spec) -> None:
    infos = parameters_of(Network(spec, plain), example=IDS)
    unused = {info.name for info in infos if info.basis is not None and not info.basis.reached}
    assert unused == ({"spare.weight", "spare.bias"} if spec.spare else set())
    assert all("unused by the example" in str(info.basis) for info in infos if info.name in unused)
