"""The laws of schedules, as shipped, on samples of ours and on schedules that break them."""

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given

from groupwise.errors import LawBroken
from groupwise.schedules import Schedule, cosine, function
from groupwise.testing import check, laws_of
from tests.schedules.samplers import schedules


@given(schedules)
def test_every_sampled_schedule_obeys_the_laws(schedule: Schedule) -> None:
    check(schedule)


@pytest.mark.parametrize("law", laws_of(function(lambda step: 0.1 / (1 + step)).then(cosine(0.1), at="50%")), ids=str)
def test_a_function_of_the_step_obeys_them(law: Callable[[], None]) -> None:
    law()


def test_a_schedule_that_can_be_written_has_one_law_more() -> None:
    names = {str(law) for law in laws_of(cosine(1.0))} - {str(law) for law in laws_of(function(float))}
    assert names == {"a file gives back what was written"}


ticks = itertools.count()
BROKEN: dict[str, tuple[Callable[[int], float], str]] = {
    "counts its calls": (lambda step: float(next(ticks)), "pure function of its arguments: at"),
    "leaves the numbers": (lambda step: math.inf if step == 24 else 1.0, "finite number at every step: at.24, 24, 1."),
    "returns no number": (lambda step: None, "finite number at every step"),  # type: ignore[dict-item, return-value]
}


@pytest.mark.parametrize(("call", "words"), BROKEN.values(), ids=BROKEN)
def test_a_function_that_breaks_a_law_is_told_which(call: Callable[[int], float], words: str) -> None:
    with pytest.raises(LawBroken, match=words):
        check(function(call))
