"""What a method remembers, against plain dicts, over any order of reading, keeping, copying, saving and forgetting."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groupwise.balance.memory import Memory
from groupwise.errors import BalanceError

NAMES = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)
CALLS = st.lists(st.tuples(st.sampled_from(["keep", "keep", "copy", "reload", "forget"]), NAMES), max_size=8)


def reloaded(memory: Memory) -> Memory:
    fresh = Memory()
    fresh.load_state_dict(memory.state_dict())
    return fresh


def check(memory: Memory, rows: dict[str, float], pairs: dict[tuple[str, str], float], names: Sequence[str]) -> None:
    assert memory.of_tasks("x", names, -1.0).tolist() == [rows.get(name, -1.0) for name in names]
    assert memory.of_tasks("two", names, torch.zeros(2)).tolist() == [[rows.get(n, 0.0)] * 2 for n in names]
    assert memory.of_pairs("y", names, -1.0).tolist() == [[pairs.get((a, b), -1.0) for b in names] for a in names]
    assert memory.has_tasks("x", names).tolist() == [name in rows for name in names]
    assert memory.tasks() == {*rows} | {name for pair in pairs for name in pair}


@given(CALLS, NAMES)
def test_every_task_and_pair_has_the_value_that_was_kept_of_it_last(
    calls: list[tuple[str, list[str]]], asked: list[str]
) -> None:
    memory, rows, pairs = Memory(), dict[str, float](), dict[tuple[str, str], float]()
    for i, (call, names) in enumerate(calls):
        if call == "keep":
            values = torch.arange(len(names), dtype=torch.float64) + 10 * i
            memory.keep_tasks("x", names, values)
            memory.keep_tasks("two", names, values.float()[:, None].expand(-1, 2))
            memory.keep_pairs("y", names, values[:, None] + values / 100)
            rows.update(zip(names, values.tolist(), strict=True))
            numbered = [*zip(names, values.tolist(), strict=True)]
            pairs.update({(a, b): v + w / 100 for a, v in numbered for b, w in numbered})
        elif call == "forget":
            memory.forget(names[0])
            rows.pop(names[0], None)
            pairs = {pair: value for pair, value in pairs.items() if names[0] not in pair}
        else:
            other = memory.copy() if call == "copy" else reloaded(memory)
            memory.keep_tasks("x", ["e"], torch.zeros(1).double())  # the one that is left goes its own way
            memory = other
        check(memory, rows, pairs, asked)
        check(memory, rows, pairs, names)


def test_what_is_read_is_a_copy() -> None:
    memory = Memory()
    memory.keep_tasks("x", "ab", torch.ones(2).double())
    memory.keep_pairs("y", "ab", torch.ones(2, 2).double())
    memory.of_tasks("x", "ab", 0.0).zero_()
    memory.of_pairs("y", "ab", 0.0).zero_()
    assert memory.of_tasks("x", "ab", 0.0).tolist() == [1, 1]
    assert memory.of_pairs("y", "ab", 0.0).tolist() == [[1, 1], [1, 1]]


def test_a_value_is_kept_for_each_task_or_for_none() -> None:
    memory = Memory()
    with pytest.raises(BalanceError, match=r"3 rows were to be kept \(x\) for 2 tasks"):
        memory.keep_tasks("x", "ab", torch.ones(3).double())
    with pytest.raises(BalanceError, match=r"\[2, 3\] values were to be kept \(y\) for the pairs of 2 tasks"):
        memory.keep_pairs("y", "ab", torch.ones(2, 3).double())
    assert memory.tasks() == set()
