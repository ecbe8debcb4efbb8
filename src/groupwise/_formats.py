"""Plan files as text: to plain data and back, in three formats.

TOML is the documented form, and the only one that is written: inline tables for what a rule declares, so that a plan
reads as a list of sentences. A plan file comes from anywhere, so size and nesting are bounded before anything looks
at the content.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

from groupwise._spelling import shown
from groupwise.errors import PlanError, unknown

LARGEST = 1_000_000
DEEPEST = 40
MOST = 200_000
_OTHER_BASE = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9_]+)+(\.[0-9_]*)?)")
"""What YAML reads as octal or sexagesimal: 010 is eight, 1:30 is ninety."""
_SUFFIXES = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_CHAIN = re.compile(rf"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')\s*\.\s*){{{DEEPEST}}}""")  # a.b.c…: slow to parse
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def format_of(path: Path) -> str:
    """The format that a file's suffix names."""
    if path.suffix.lower() not in _SUFFIXES:
        raise PlanError(unknown("suffix of a plan file", path.suffix, _SUFFIXES))
    return _SUFFIXES[path.suffix.lower()]


def read(path: Path) -> str:
    """The text of a file. `PlanError` if there is none, or if it is no text."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise PlanError(f"cannot read the file: {error.strerror}") from error
    except ValueError as error:
        raise PlanError(f"cannot read the file: {error}") from error
    if len(data) > LARGEST:
        raise PlanError(f"the file is larger than {LARGEST:,} bytes: that is no plan")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PlanError(f"the file is not UTF-8 text (byte {error.start})") from error


def parse(text: str, format: str) -> dict[str, Any]:
    """Text as a table of plain data. `PlanError` with the parser's own line and column."""
    readers: dict[str, Callable[[str], Any]] = {"toml": _toml, "json": _json, "yaml": _yaml}
    if not isinstance(text, str):
        raise PlanError(f"a plan is read from text, not {shown(text)}; Plan.load(path) reads a file")
    if not isinstance(format, str) or format not in readers:
        raise PlanError(unknown("format", format, readers))
    if len(text) > LARGEST:
        raise PlanError(f"the text is longer than {LARGEST:,} characters: that is no plan")
    try:
        data = readers[format](text)
    except PlanError:
        raise
    except ValueError as error:  # the parsers' own errors, and integers that Python refuses to read
        raise PlanError(f"not valid {format.upper()}: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise PlanError(f"nested deeper than {DEEPEST} levels") from error
    if not data:
        raise PlanError("the plan is empty")
    if not isinstance(data, dict):
        raise PlanError(f"a plan is a table with [[rule]] entries, not {type(data).__name__}")
    _bounded(data)
    return data


def _toml(text: str) -> Any:
    if _CHAIN.search(text):
        raise PlanError(f"nested deeper than {DEEPEST} levels")
    return tomllib.loads(text)


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise PlanError('YAML plans need PyYAML: pip install "groupwise[yaml]", or write the plan as TOML') from error

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML is untyped
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            _once([(key.value, key) for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
            return node

        def compose_scalar_node(self, anchor: Any) -> Any:
            node = super().compose_scalar_node(anchor)
            if node.tag.endswith((":int", ":float")) and _OTHER_BASE.fullmatch(node.value):
                raise ValueError(
                    f"{shown(node.value)} is a number to the base of 8 or 60 in YAML: write it as a decimal number, or "
                    "in quotes as text"
                )
            return node

        def compose_document(self) -> Any:
            document = super().compose_document()
            _Expansion().of(document)
            return document

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


@final
class _Expansion:
    """How much a YAML document will be once every alias and every merge key stands for what it means.

    It is counted on what was composed, where an alias costs nothing yet; a node that is met again is not walked again.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, tuple[int, int] | None] = {}

    def of(self, node: Any) -> tuple[int, int]:
        """The entries below a node, and their levels. Raises `PlanError` where either is more than a plan has."""
        if id(node) not in self._sizes:
            self._sizes[id(node)] = None
            inner = node.value if isinstance(node.value, list) else ()  # pairs of a mapping, items of a list
            found = [self.of(child) for item in inner for child in (item if isinstance(item, tuple) else (item,))]
            entries, levels = 1 + sum(size for size, _ in found), 1 + max((deep for _, deep in found), default=0)
            if entries > MOST:
                raise PlanError(f"more than {MOST:,} entries: that is no plan")
            self._sizes[id(node)] = entries, levels
        known = self._sizes[id(node)]
        if known is None or known[1] > DEEPEST + 1:  # it holds itself, or nests too deep
            raise PlanError(f"nested deeper than {DEEPEST} levels")
        return known


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table, no key of which is given twice."""
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise PlanError(f"{shown(next(key for key in keys if keys.count(key) > 1))} is given twice in one table")
    return table


def _bounded(data: object) -> None:
    """Refuse what is too deep or, through YAML's aliases, too large to walk; and what no plan holds."""
    entries, letters, level = 0, 0, [data]
    for _ in range(DEEPEST):
        entries += sum(len(node) for node in level if isinstance(node, dict | list))
        if entries > MOST:
            raise PlanError(f"more than {MOST:,} entries: that is no plan")
        level = [child for node in level for child in _children(node)]
        letters += sum(_letters(node) for node in level)
        if letters > LARGEST:
            raise PlanError(f"its text is longer than {LARGEST:,} characters: that is no plan")
        if not level:
            return
    raise PlanError(f"nested deeper than {DEEPEST} levels")


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        for key in node:
            if not isinstance(key, str):
                raise PlanError(f"every key must be text, not {shown(key)}")
            _letters(key)
        return list(node.values())
    return list(node) if isinstance(node, list) else []


def _letters(leaf: object) -> int:
    """The length of a text. `PlanError` for a leaf that cannot be printed, written or computed with."""
    if isinstance(leaf, int) and not -(2**63) <= leaf < 2**63:
        raise PlanError(f"{shown(leaf)} is an integer of more than 64 bits: write a float such as 1e20")
    if not isinstance(leaf, str):
        return 0
    if _HALF_CHARACTER.search(leaf):
        raise PlanError(f"{shown(leaf)} is not Unicode text: it holds half of a surrogate pair")
    return len(leaf)


def load(path: Path) -> dict[str, Any]:
    """The table of plain data in a file. `PlanError` with the parser's own line and column."""
    format = format_of(path)
    return parse(read(path), format)


def lines_of(text: str, format: str, key: str, tables: object) -> list[int]:
    """The lines of the headers of an array of tables in TOML, from 1; empty where it is written in another way."""
    header = re.compile(rf"\s*\[\[\s*{key}\s*\]\]")
    lines = [i for i, line in enumerate(text.splitlines(), 1) if header.match(line)]
    return lines if format == "toml" and isinstance(tables, list) and len(tables) == len(lines) else []


def write_toml(data: Mapping[str, Any]) -> str:
    """A table of plain data as TOML: top-level tables and arrays of tables as sections, all below them inline.

    Raises `PlanError` for what `parse` would refuse to read back.
    """
    _bounded(data)
    plain = [f"{_key(key)} = {_inline(value)}\n" for key, value in data.items() if not _is_section(key, value)]
    sections = []
    for key, value in data.items():
        if _is_section(key, value):
            entries = value if isinstance(value, list) else [value]
            header = f"[[{_key(key)}]]" if isinstance(value, list) else f"[{_key(key)}]"
            sections += [
                "\n".join([header, *(f"{_key(k)} = {_inline(v)}" for k, v in entry.items()), ""]) for entry in entries
            ]
    return "\n".join(["".join(plain), *sections] if plain else sections)


def _is_section(key: str, value: object) -> bool:
    tables = isinstance(value, list) and all(isinstance(item, dict) for item in value)
    return tables or (isinstance(value, dict) and key != "clip")


def _inline(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_inline(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    raise PlanError(f"{shown(value)} has no form in a plan file")


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False).replace("\x7f", "\\u007f")
