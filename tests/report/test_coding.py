"""The JSON form: what was written is read as it was; anything else is refused, whatever it is."""

import contextlib
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groupwise.errors import RecordError
from groupwise.report import Report
from groupwise.report.coding import dumps, loads
from groupwise.report.document import Line, Lines, Panel, RunReport, Sentence, Table
from tests.report.runs import HOSTILE

text = st.text(max_size=20) | st.sampled_from(HOSTILE)
number = st.floats(allow_nan=False)
courses = st.lists(st.tuples(st.integers(0, 10**9), number), min_size=1, max_size=3).map(
    lambda pairs: [*zip(*sorted(pairs), strict=True)]
)
lines = courses.flatmap(lambda course: st.builds(Line, text, st.just(course[0]), st.just(course[1]), st.booleans()))
tables = st.builds(Table, text, st.just(("a", "b")), st.lists(st.tuples(text, text), max_size=2).map(tuple), text)
figures = tables | st.builds(Lines, text, text, st.lists(lines, max_size=2).map(tuple), tables, st.booleans())
panels = st.builds(Panel, text, text, text, st.lists(figures, max_size=2).map(tuple), text)
sentences = st.builds(Sentence, text, st.sampled_from(["look", "note", "fine"]), text, text, text)
runs = st.builds(
    RunReport, text, text, st.lists(st.tuples(text, text), max_size=2).map(tuple),
    st.lists(sentences, max_size=2).map(tuple), st.lists(panels, max_size=2).map(tuple),
)  # fmt: skip
reports = st.builds(Report, st.lists(runs, min_size=1, max_size=2).map(tuple))


@given(reports)
def test_a_report_is_read_as_it_was_written(report: Report) -> None:
    assert loads(dumps(report)) == report


@given(reports)
def test_the_text_is_plain_ascii_and_cannot_end_a_script(report: Report) -> None:
    written = dumps(report)
    assert set(written) <= set(string.printable)
    assert not set(written) & set("<>&\n")
    json.loads(written, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@given(reports, st.data())
def test_a_damaged_report_is_refused_or_still_a_report(report: Report, data: st.DataObject) -> None:
    keys = json.loads(dumps(report))
    place = keys
    while isinstance(place, dict | list) and place:
        options = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(options))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(st.sampled_from([None, 3, "x", [], {}, [[]], True, {"kind": "Line"}, {"kind": []}]))
            break
        place = place[key]
    with contextlib.suppress(RecordError):
        dumps(loads(json.dumps(keys)))
