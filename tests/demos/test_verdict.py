"""The words follow the numbers, also when the numbers do not flatter the plan."""

import pytest

from groupwise.demos.verdict import margin, standing, words

GOOD = [98.6, 98.9, 98.4]


def shifted(points: float) -> list[float]:
    return [value + points for value in GOOD]


def test_one_seed_apart_by_less_than_luck_is_level() -> None:
    assert standing([98.0], [99.0]) == "level"


def test_one_seed_apart_by_more_than_luck_is_a_difference() -> None:
    assert standing([95.0], [99.0]) == "behind"
    assert standing([99.0], [95.0]) == "ahead"


def test_seeds_that_disagree_widen_the_margin() -> None:
    assert margin([5.0, -5.0, 6.0]) > margin([1.0, 1.1, 0.9])
    assert standing([90.0, 99.0, 80.0], [85.0, 99.5, 84.0]) == "level"


def test_more_seeds_that_agree_narrow_the_margin() -> None:
    assert margin([1.0] * 9) < margin([1.0] * 3) < margin([1.0])


def test_seeds_are_paired() -> None:
    hard_and_easy = [70.0, 99.0, 85.0]
    assert standing([value + 2 for value in hard_and_easy], hard_and_easy) == "ahead"


@pytest.mark.parametrize("place", [(0.0, "level"), (-4.0, "behind"), (+4.0, "ahead")])
def test_the_plan_is_called_what_it_is(place: tuple[float, str]) -> None:
    points, word = place
    said = words(shifted(points), shifted(-25), GOOD, 100.0)[1]
    assert f"The plan is {word}" in said


def test_a_level_plan_claims_no_magic() -> None:
    assert "Grouping is no magic" in words(GOOD, shifted(-25), GOOD, 100.0)[2]


def test_a_plan_that_is_behind_recommends_the_other() -> None:
    assert "one well-tuned AdamW is the better choice" in words(shifted(-4), shifted(-25), GOOD, 100.0)[2]


def test_a_plan_that_is_ahead_asks_for_more_seeds() -> None:
    assert "more seeds" in words(shifted(+4), shifted(-25), GOOD, 100.0)[2]


def test_the_usual_way_far_behind_is_explained_by_the_loud_task() -> None:
    said = words(GOOD, shifted(-25), GOOD, 111.0)[0]
    assert "far behind, 25.0 points" in said
    assert "drowns" in said
    assert "111 times" in said


def test_a_sum_that_is_not_loud_is_not_blamed() -> None:
    assert "is not what drowns" in words(GOOD, shifted(-25), GOOD, 3.0)[0]


def test_a_usual_way_that_is_not_behind_is_not_called_so() -> None:
    assert "level with" in words(GOOD, GOOD, GOOD, 100.0)[0]
    assert "ahead of" in words(GOOD, shifted(+6), GOOD, 100.0)[0]


def test_three_that_are_level_teach_nothing() -> None:
    assert "nothing to explain" in words(GOOD, GOOD, GOOD, 100.0)[2]


def test_a_plan_level_with_a_tuned_one_that_beats_nobody_explains_nothing() -> None:
    said = words([91.0], [90.0], [90.5], 100.0)[2]
    assert "did it" not in said


def test_runs_at_chance_are_not_explained() -> None:
    (said,) = words([34.0], [10.0], [12.0], 100.0)
    assert "Nobody has learned" in said
