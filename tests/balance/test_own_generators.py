"""A method that draws may be given a generator of its own."""

import copy

import pytest
import torch
from torch import Tensor

from groupwise.balance.memory import Memory
from groupwise.balance.method import GramianMethod, JacobianMethod, LossMethod, Method, MethodContext
from groupwise.balance.methods import RLW, GradDrop, GradVac, PCGrad, RandomWeights
from groupwise.balance.plan_table import encode
from groupwise.errors import BalanceError

DRAWING = (RLW, PCGrad, GradVac, RandomWeights, GradDrop)
ROWS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CONFLICTING = ROWS - 1.5 * ROWS.mean(0)
SEEN = MethodContext(tuple("abcd"), torch.ones(4, dtype=torch.float64), 0, (6,))


def drawn(method: Method, memory: Memory) -> Tensor:
    if isinstance(method, LossMethod):
        return method.weights(SEEN.losses, SEEN, memory)
    if isinstance(method, GramianMethod):
        return method.weights(CONFLICTING @ CONFLICTING.T, SEEN, memory)
    assert isinstance(method, JacobianMethod)
    return method.update(CONFLICTING, SEEN, memory)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("cls", DRAWING)
def test_the_draws_are_the_generators_and_leave_the_memorys_alone(cls: type[Method]) -> None:
    memory = Memory()
    before = memory.generator.get_state()
    found = drawn(cls(generator=seeded(7)), memory)  # type: ignore[call-arg]
    assert torch.equal(found, drawn(cls(), Memory(seed=7)))
    assert torch.equal(before, memory.generator.get_state())
    others = [drawn(cls(generator=seeded(seed)), Memory()) for seed in range(8)]  # type: ignore[call-arg]
    assert not all(torch.equal(found, other) for other in others)


@pytest.mark.parametrize("cls", DRAWING)
def test_a_run_goes_on_to_the_last_bit_with_the_generators_state_which_is_the_users_to_save(cls: type[Method]) -> None:
    generator, memory = seeded(3), Memory()
    method = cls(generator=generator)  # type: ignore[call-arg]
    drawn(method, memory)
    state, rest = generator.get_state(), copy.deepcopy(memory)
    ahead = [drawn(method, memory) for _ in range(3)]
    generator.set_state(state)
    assert all(torch.equal(one, drawn(method, rest)) for one in ahead)


@pytest.mark.parametrize("cls", DRAWING)
def test_it_is_no_constant_of_the_method(cls: type[Method]) -> None:
    method = cls(generator=seeded(1))  # type: ignore[call-arg]
    assert method == cls()
    assert hash(method) == hash(cls())
    assert repr(method) == repr(cls())
    with pytest.raises(BalanceError, match="is Python only and cannot be written to a file"):
        encode(method)


def test_what_is_no_generator_is_refused() -> None:
    with pytest.raises(BalanceError, match=r"RLW: generator: 0 is not a generator: write torch.Generator\(\)"):
        RLW(generator=0)  # type: ignore[arg-type]
