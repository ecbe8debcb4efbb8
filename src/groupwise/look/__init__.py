"""Look instead of guess: what one forward pass shows of each parameter's role and depth.

Names, classes and containers only suggest what a parameter is for. What is done with it is a fact: rows are gathered
from a table, a product multiplies by a matrix, a norm scales by its weight, a bias is added. One forward pass, on the
`meta` device where nothing is computed, shows it, and shows which block takes what from which. The result is a value of
`groupwise.select`, so plans are resolved on it as on guesses.
"""

from typing import TYPE_CHECKING

from groupwise import _lazy
from groupwise.look.example import Example
from groupwise.look.parameters import parameters_of

if TYPE_CHECKING:
    from groupwise.look.api import look

__all__ = ["Example", "look", "parameters_of"]

__getattr__ = _lazy.on_first_use(__name__, {"look": "api"})


def __dir__() -> list[str]:
    return __all__
