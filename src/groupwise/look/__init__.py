"""Look instead of guess: what one forward pass shows of each parameter's role and depth.

Names, classes and containers only suggest what a parameter is for. What is done with it is a fact: rows are gathered
from a table, a product multiplies by a matrix, a norm scales by its weight, a bias is added. One forward pass, on the
`meta` device where nothing is computed, shows it, and shows which block takes what from which. The result is a value of
`groupwise.select`, so plans are resolved on it as on guesses.
"""

from groupwise import _pickling
from groupwise.look.api import look, parameters_of
from groupwise.look.example import Example

__all__ = ["Example", "look", "parameters_of"]

_pickling.by_name(__name__, __all__)
