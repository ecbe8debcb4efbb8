"""What `help()` says of a public schedule: every argument, the source where there is a twin, an example that runs."""

import dataclasses
import doctest
import inspect

import pytest

from groupwise import schedules

SHAPES = [
    getattr(schedules, name)
    for name in schedules.__all__
    if inspect.isclass(getattr(schedules, name)) and name.islower()
]


def names(shape: type) -> list[str]:
    return [name for name in inspect.signature(shape).parameters if name != "self"]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_the_docstring_explains_every_argument(shape: type) -> None:
    explained = inspect.getdoc(shape).partition("Args:")[2].partition("Source:")[0]  # type: ignore[union-attr]
    missing = [name for name in names(shape) if f"\n    {name}: " not in explained]
    assert not missing, missing


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_the_example_in_the_docstring_is_true(shape: type) -> None:
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    public = {name: getattr(schedules, name) for name in schedules.__all__}
    (found,) = finder.find(shape, shape.__name__, globs=public)
    assert found.examples
    assert runner.run(found).failed == 0


def test_every_schedule_that_can_be_built_is_covered() -> None:
    public = [getattr(schedules, name) for name in schedules.__all__]
    built = {cls for cls in public if inspect.isclass(cls) and issubclass(cls, schedules.Schedule)}
    combined = {schedules.Schedule, schedules.Then, schedules.Scaled, schedules.Clamped}
    assert built - combined == set(SHAPES)
    assert all(dataclasses.is_dataclass(shape) for shape in SHAPES)
