"""Inside the compiled step a schedule is what it is outside: the law of the table, over every kind."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings

from groupwise.keras.schedule_table import Table
from groupwise.plan import ScalarSetting
from groupwise.plan.declarations import Multiplier
from groupwise.schedules import Schedule, cosine, function, linear
from tests.schedules.samplers import epoch_sizes, schedules, totals

FEW = settings(max_examples=40, deadline=None)


def rounded(value: float) -> float:
    """In float32, as XLA has it on a CPU: what is too small for a normal number is zero."""
    number = np.float32(value)
    return float(number) if abs(number) >= np.finfo(np.float32).tiny else 0.0


def looked_up(table: Table, step: int) -> list[float]:
    found = table.at(keras.ops.convert_to_tensor(step, dtype="int32"))
    return [float(keras.ops.convert_to_numpy(value)) for value in found]


@FEW
@given(schedule=schedules, total=totals, epoch=epoch_sizes)
def test_the_table_is_the_schedule_rounded_once(schedule: Schedule, total: int, epoch: int) -> None:
    table = Table([ScalarSetting(schedule)], total, epoch)
    for step in {0, 1, total // 2, max(total - 1, 0), total, total + 7}:
        (found,) = looked_up(table, step)
        assert rounded(found) == rounded(schedule.at(step, total, epoch))


def test_functions_of_python_are_looked_up_like_any_other() -> None:
    table = Table([ScalarSetting(function(lambda step: (-1.0) ** step))], 5, None)
    assert [looked_up(table, step) for step in range(7)] == [[1.0], [-1.0]] * 3 + [[-1.0]]


def test_settings_that_differ_in_constant_factors_share_one_course() -> None:
    base = cosine(0.1)
    halves = [Multiplier(0.5, "0.5")]
    settings = [
        ScalarSetting(base),
        ScalarSetting(base, tuple(halves)),
        ScalarSetting(linear(1, 0)),
        ScalarSetting(base, tuple(halves * 2)),
    ]
    table = Table(settings, 10, None)
    assert table.courses == 2
    expected = [setting.at(4, 10) for setting in settings]
    assert looked_up(table, 4) == pytest.approx(expected, rel=2e-7)
