"""What happened on the way: skipped updates, values that were not finite, changed groups, resumes, the end."""

from __future__ import annotations

from typing import Final

from groupwise.report.document import Panel, Table
from groupwise.report.reading import Reading

MOST: Final = 50


def panel(reading: Reading) -> Panel:
    """The events of the run, in order."""
    lead = "Everything that is not a number."
    events = reading.run.events
    if not events:
        return Panel("events", "Events", lead, missing="The records hold no event: nothing was skipped or resumed.")
    rows = tuple((f"{event.step:,}", event.event, event.text or "-") for event in events[:MOST])
    note = f"The first {MOST} of {len(events):,}." if len(events) > MOST else ""
    return Panel("events", "Events", lead, (Table("Events", ("step", "event", "what"), rows, note),))
