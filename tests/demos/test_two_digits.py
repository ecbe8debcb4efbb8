"""The job is honest: no scan on both sides, no scan beside itself, the same seed the same pairs."""

import sys

import pytest
import torch

from groupwise.demos.two_digits import TEST_PAIRS, TRAIN_PAIRS, TRAIN_SCANS, Pairs, Scans, load_scans, split
from groupwise.errors import GroupwiseError


@pytest.fixture(scope="module")
def scans() -> Scans:
    return load_scans()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(3))
def test_no_scan_is_on_both_sides(scans: Scans, seed: int) -> None:
    train, test = split(scans, seeded(seed))
    assert not set(train.scans.unique().tolist()) & set(test.scans.unique().tolist())


def test_the_sizes_are_those_announced(scans: Scans) -> None:
    train, test = split(scans, seeded(0))
    assert (len(train), len(test)) == (TRAIN_PAIRS, TEST_PAIRS)
    assert train.images.shape == (TRAIN_PAIRS, 1, 8, 16)
    assert len(train.scans.unique()) == TRAIN_SCANS
    assert len(scans.digits) - TRAIN_SCANS == 497


def test_no_scan_stands_beside_itself(scans: Scans) -> None:
    train, _ = split(scans, seeded(0))
    assert (train.scans[:, 0] != train.scans[:, 1]).all()


def test_a_picture_shows_what_its_targets_say(scans: Scans) -> None:
    train, _ = split(scans, seeded(0))
    left, right = train.scans[7].tolist()
    assert torch.equal(train.images[7, 0, :, :8], scans.images[left])
    assert torch.equal(train.images[7, 0, :, 8:], scans.images[right])
    assert train.targets["sum"][7] == scans.digits[left] + scans.digits[right]


def test_the_same_seed_makes_the_same_pairs(scans: Scans) -> None:
    first, second = split(scans, seeded(4)).train, split(scans, seeded(4)).train
    assert torch.equal(first.scans, second.scans)
    assert not torch.equal(first.scans, split(scans, seeded(5)).train.scans)


def test_batches_visit_every_pair_once_before_any_twice(scans: Scans) -> None:
    train, _ = split(scans, seeded(0), train_pairs=96)
    visited = torch.cat([batch.scans for batch in train.batches(32, 3, seeded(1))])
    assert sorted(map(tuple, visited.tolist())) == sorted(map(tuple, train.scans.tolist()))


def test_batches_are_as_many_and_as_large_as_asked(scans: Scans) -> None:
    train, _ = split(scans, seeded(0), train_pairs=100)
    batches: list[Pairs] = list(train.batches(32, 7, seeded(1)))
    assert [len(batch) for batch in batches] == [32] * 7


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(GroupwiseError, match=r'pip install "groupwise\[demo\]"'):
        load_scans()
