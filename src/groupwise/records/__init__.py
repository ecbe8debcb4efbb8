"""Records: lines of JSON, the contract between training and reading.

`read` gives a `Run` with its numbers as series; `Writer` appends `Step` and `Event` under a `Header`. The standard
library is all it takes.
"""

from groupwise import _pickling
from groupwise.records.columns import Series
from groupwise.records.parts import finished_after
from groupwise.records.run import Run, read
from groupwise.records.values import VERSION, Clip, Event, Group, Header, Step
from groupwise.records.writer import PART_BYTES, Writer

__all__ = [
    "PART_BYTES",
    "VERSION",
    "Clip",
    "Event",
    "Group",
    "Header",
    "Run",
    "Series",
    "Step",
    "Writer",
    "finished_after",
    "read",
]

_pickling.by_name(__name__, __all__)
