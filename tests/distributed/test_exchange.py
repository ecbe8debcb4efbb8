"""The exchange between ranks that everything else uses: collectives, notes, and whether all say the same."""

import json
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from groupwise import _ranks
from groupwise._ranks import Group, Notes, by_rank, checksums, differing, named
from tests.distributed.jobs import patience
from tests.distributed.ranks import Ranks

TEXTS = st.sampled_from(["", "0.1", "0.2", "AdamW", "ä", "0.1 "])


def collectives() -> tuple[int, int, list[str], list[float], list[tuple[list[int], list[float], str]]]:
    group = _ranks.world()
    if group is None:
        raise LookupError("there are two ranks")
    rank = dist.get_rank()
    wide, narrow = torch.zeros(2, 2), torch.zeros(3, dtype=torch.float64)
    pieces = {wide: torch.full((2, 2), 1.0 + rank), narrow: torch.full((3,), 10.0 * rank, dtype=torch.float64)}
    summed = [([*t.shape], t.flatten().tolist(), str(t.dtype)) for _, t in group.add_all(pieces)]
    return group.size, group.rank, group.gather(f"of {rank}"), group.add(torch.tensor([1.0, rank])).tolist(), summed


def test_a_gather_is_ordered_by_rank_and_a_sum_is_over_all(two: Ranks) -> None:
    for rank, (size, own, gathered, total, summed) in enumerate(two(collectives)):
        assert (size, own) == (2, rank)
        assert gathered == ["of 0", "of 1"]
        assert total == [2.0, 1.0]
        assert summed == [([2, 2], [3.0] * 4, "torch.float32"), ([3], [10.0] * 3, "torch.float64")]


def in_one_group_of_one() -> tuple[int, list[int], list[float]]:
    alone = [dist.new_group([rank]) for rank in range(2)][dist.get_rank()]
    group = Group(alone)
    return group.size, group.gather(dist.get_rank()), group.add(torch.ones(1)).tolist()


def test_a_group_has_the_ranks_of_its_own_process_group_alone(two: Ranks) -> None:
    assert two(in_one_group_of_one) == [(1, [0], [1.0]), (1, [1], [1.0])]


def notes_of(what: str) -> object:
    notes, rank = Notes.under(f"test of notes/{what}"), dist.get_rank()
    if notes is None:
        raise LookupError("there are two ranks")
    found: object
    if what == "texts":
        notes.write(str(rank), f"by {rank}")
        dist.barrier()
        found = notes.read(["0", "1", "2"]), notes.read(["2"]), notes.read([])
    elif what == "counts":
        before = notes.count("here")
        dist.barrier()
        come = notes.arrive("here")
        dist.barrier()
        found = before, come in (1, 2), notes.count("here")
    else:
        first = notes.settle("answer", f"of {rank}")
        dist.barrier()
        found = first, notes.settle("answer", "later")
    dist.barrier()
    return found


def test_notes_are_read_by_all_and_what_is_not_there_is_left_out(two: Ranks) -> None:
    assert two(notes_of, "texts") == [({"0": "by 0", "1": "by 1"}, {}, {})] * 2


def test_notes_count_who_has_come(two: Ranks) -> None:
    assert two(notes_of, "counts") == [(0, True, 2)] * 2


def test_one_answer_stands_for_all(two: Ranks) -> None:
    (first, later), other = two(notes_of, "answer")
    assert first in ("of 0", "of 1")
    assert other == (first, later) == (first, first)


def test_without_other_ranks_there_is_no_group_and_there_are_no_notes() -> None:
    assert _ranks.world() is None
    assert Notes.under("anything") is None


def test_looking_again_ends() -> None:
    with patience(0.05):
        assert 1 <= len([*_ranks.polls()]) <= 10
    assert [*_ranks.polls(0.0)] == []


@given(st.lists(st.lists(TEXTS, min_size=3, max_size=3), min_size=1, max_size=8))
def test_checksums_tell_exactly_the_texts_that_are_not_the_same_everywhere(by_rank_texts: list[list[str]]) -> None:
    sums = [sum(column) for column in zip(*map(checksums, by_rank_texts), strict=True)]
    expected = [n for n, texts in zip("abc", zip(*by_rank_texts, strict=True), strict=True) if len({*texts}) > 1]
    assert differing(["a", "b", "c"], sums, len(by_rank_texts)) == expected


@given(st.dictionaries(st.integers(0, 7), TEXTS, min_size=1))
def test_a_difference_names_every_rank_once_with_its_text(texts: dict[int, str]) -> None:
    sentences = by_rank(texts)
    assert len(sentences) == len({*texts.values()})
    for text in texts.values():
        with_it = [rank for rank, other in texts.items() if other == text]
        assert f"{text} on {named(with_it)}" in sentences


def test_ranks_are_named_in_order_and_long_texts_are_cut() -> None:
    assert named([3, 0]) == "ranks 0, 3"
    assert named([1]) == "rank 1"
    (sentence,) = by_rank({0: "x" * 500})
    assert sentence == f"{'x' * 119}… on rank 0"


@pytest.mark.parametrize("name", ["optim.grouped_optimizer", "observe.observer", "balance.balancer", "checkpoint.api"])
def test_who_has_no_sharded_tensors_does_not_load_what_makes_them(name: str) -> None:
    code = f"import torch, json, sys; a = set(sys.modules); import groupwise.{name}; b = set(sys.modules) - a"
    report = "; sys.stdout.write(json.dumps([m for m in b if m.startswith('torch.distributed')]))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
