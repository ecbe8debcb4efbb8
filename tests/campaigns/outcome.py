"""What comes of one input of a campaign: the fault was survived, or one of four things that must not be."""

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """The columns of the table."""

    SURVIVED = "survived"
    LOSS = "losses"
    FOREIGN = "foreign exceptions"
    HANG = "hangs"
    MEMORY = "memory over bound"


class Outcome(NamedTuple):
    """A kind, and in words what happened."""

    kind: Kind
    said: str


def survived(said: str) -> Outcome:
    """As it should be: refused in our own words, whole, or unchanged."""
    return Outcome(Kind.SURVIVED, said)


def loss(said: str) -> Outcome:
    """Something was lost, or garbage was taken for what was written."""
    return Outcome(Kind.LOSS, said)


def foreign(error: BaseException) -> Outcome:
    """An exception that is not one of ours, nor of the system."""
    return Outcome(Kind.FOREIGN, f"{type(error).__name__}: {error}")
