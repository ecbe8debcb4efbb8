"""What rates should a model have? `groupwise.probe(model, plan, batches, loss=…, total_steps=…)` tries, and says.

Recipes say "determined empirically". A probe does that on copies, for a stated budget, and says how sure it is, also
where the answer is to leave a plan as it is.
"""

from groupwise import _pickling
from groupwise.probing.api import probe
from groupwise.probing.measuring import Part, Seen, Task
from groupwise.probing.rates import Rates
from groupwise.probing.result import ProbeResult

__all__ = ["Part", "ProbeResult", "Rates", "Seen", "Task", "probe"]

_pickling.by_name(__name__, __all__)
