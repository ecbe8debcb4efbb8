"""An existing program as a plan: its optimizers and schedulers are read, the shortest plan that equals them is written.

Nobody has to rewrite a program in order to see what it does. What stands in the parameter groups is read, what the
schedulers will do is recognised, and rules are looked for that come to the same groups: by role, by number of
dimensions, by depth, by glob, and by lists of names where nothing else fits. What cannot be said in a plan is said
beside it.
"""

from groupwise import _pickling
from groupwise.adopt.api import Adopted, adopt

__all__ = ["Adopted", "adopt"]

_pickling.by_name(__name__, __all__)
