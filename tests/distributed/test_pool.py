"""The pool of ranks itself: a failure is shown, a rank that died is noticed, and the next function gets a new pool."""

import os

import pytest
import torch
import torch.distributed as dist

from tests.distributed.ranks import RankFailed, Ranks


def added(x: float) -> float:
    total = torch.tensor(x + dist.get_rank())
    dist.all_reduce(total)
    return total.item()


def failing() -> None:
    if dist.get_rank() == 1:
        raise ValueError("not today")
    dist.barrier()


def dying() -> None:
    os._exit(3)


def test_ranks_talk_to_one_another(two: Ranks) -> None:
    assert two(added, 1.0) == [3.0, 3.0]


def test_a_failure_on_one_rank_is_shown_and_the_next_function_runs(two: Ranks) -> None:
    with pytest.raises(RankFailed, match=r"rank 1 of 2:(.|\n)*not today"):
        two(failing)
    with pytest.raises(RankFailed, match="it died"):
        two(dying)
    assert two(added, 0.0) == [1.0, 1.0]
