"""The laws that parts of groupwise obey, for parts of your own: a balancing method, a schedule, an optimizer class.

    @pytest.mark.parametrize("law", laws_of(MyMethod()), ids=str)
    def test_my_method(law):
        law()

Every law is a plain callable that raises `LawBroken`, an `AssertionError`, with the sample that broke it; any test
runner will do, and none is imported. `check(part)` calls them all. They are the laws that groupwise's own parts are
tested by.
"""

from groupwise import _pickling
from groupwise.errors import LawBroken
from groupwise.testing.api import check, laws_of
from groupwise.testing.law import Law

__all__ = ["Law", "LawBroken", "check", "laws_of"]

_pickling.by_name(__name__, __all__)
