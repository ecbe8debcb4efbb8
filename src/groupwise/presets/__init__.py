"""Plan files of published recipes, one for each kind of model, to begin from: `groupwise new NAME > plan.toml`.

A preset is a plan file like any other, and its head says what it is: one line in words, then its source, the models
that it fits, what it expects to find in one, and what to change first. Nothing refers back to it: who has written it to
a file owns the file.
"""

from groupwise import _pickling
from groupwise.presets.library import names, preset
from groupwise.presets.misfit import misfit
from groupwise.presets.preset import Preset, origin

__all__ = ["Preset", "misfit", "names", "origin", "preset"]

_pickling.by_name(__name__, __all__)
