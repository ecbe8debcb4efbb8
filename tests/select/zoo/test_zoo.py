"""The zoo: role and level of every parameter of real architectures, against tables written by hand."""

import re
from typing import NamedTuple

import pytest

from groupwise.select import ParameterInfo, parameters_of
from tests.select.zoo.builders import BUILDERS
from tests.select.zoo.tables import TABLES

Described = tuple[tuple[str, ...], int]


class Row(NamedTuple):
    """One row of a table."""

    pattern: re.Pattern[str]
    roles: tuple[str, ...]
    level: str

    def of(self, name: str) -> Described | None:
        found = self.pattern.fullmatch(name)
        if found is None:
            return None
        number, plus, offset = self.level.partition("+")
        return self.roles, int(found[1]) + int(offset) if plus else int(number)


def rows_of(table: str) -> list[Row]:
    rows = []
    for line in filter(str.strip, table.splitlines()):
        pattern, *roles, level = line.split()
        text = re.escape(pattern).replace(r"\#", r"(\d+)").replace(r"\*", r"[^.]*").replace(r"\?", r"[^.]")
        text = re.sub(r"\\{(.*?)\\}", lambda found: f"(?:{found[1].replace(',', '|')})", text)
        rows.append(Row(re.compile(text), tuple(roles), level))
    return rows


def described(info: ParameterInfo) -> Described:
    return tuple(sorted(info.roles)), info.depth


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TABLES)
def test_every_parameter_has_the_role_and_the_level_of_the_table(name: str) -> None:
    rows = rows_of(TABLES[name])
    unused = set(rows)
    for info in parameters_of(BUILDERS[name]()):
        fitting = [row for row in rows if row.of(info.name)]
        assert len(fitting) == 1, f"{info.name}: {len(fitting)} rows"
        assert described(info) == fitting[0].of(info.name), info.name
        unused -= set(fitting)
    assert not unused, [row.pattern.pattern for row in unused]
