"""Text to plain data and back, in three formats.

TOML is the documented form, and the only one that is written: inline tables for what a rule declares, so that a plan
reads as a list of sentences. A plan file comes from anywhere, so size and nesting are bounded before anything looks
at the content.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from groupwise.errors import PlanError, unknown

LARGEST = 4_000_000
DEEPEST = 40
MOST = 200_000
_SUFFIXES = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def format_of(path: Path) -> str:
    """The format that a file's suffix names."""
    if path.suffix.lower() not in _SUFFIXES:
        raise PlanError(unknown("suffix of a plan file", path.suffix, _SUFFIXES))
    return _SUFFIXES[path.suffix.lower()]


def read(path: Path) -> str:
    """The text of a file. `PlanError` if there is none, or if it is no text."""
    try:
        if path.stat().st_size > LARGEST:
            raise PlanError(f"the file is larger than {LARGEST:,} bytes: that is no plan")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PlanError(f"the file is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise PlanError(f"cannot read the file: {error.strerror}") from error


def parse(text: str, format: str) -> dict[str, Any]:
    """Text as a table of plain data. `PlanError` with the parser's own line and column."""
    readers: dict[str, Callable[[str], Any]] = {"toml": tomllib.loads, "json": json.loads, "yaml": _yaml}
    if format not in readers:
        raise PlanError(unknown("format", format, readers))
    if len(text) > LARGEST:
        raise PlanError(f"the text is longer than {LARGEST:,} characters: that is no plan")
    try:
        data = readers[format](text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise PlanError(f"not valid {format.upper()}: {error}") from error
    except RecursionError as error:
        raise PlanError(f"nested deeper than {DEEPEST} levels") from error
    if not data:
        raise PlanError("the plan is empty")
    if not isinstance(data, dict):
        raise PlanError(f"a plan is a table with [[rule]] entries, not {type(data).__name__}")
    _bounded(data)
    return data


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise PlanError('YAML plans need PyYAML: pip install "groupwise[yaml]", or write the plan as TOML') from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise PlanError(f"not valid YAML: {' '.join(str(error).split())}") from error


def _bounded(data: object) -> None:
    """Refuse what is too deep or, through YAML's aliases, too large to walk."""
    seen, level = 0, [data]
    for _ in range(DEEPEST):
        children = [child for node in level for child in _children(node)]
        seen += len(children)
        if seen > MOST:
            raise PlanError(f"more than {MOST:,} entries: that is no plan")
        if not children:
            return
        level = children
    raise PlanError(f"nested deeper than {DEEPEST} levels")


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        for key in node:
            if not isinstance(key, str):
                raise PlanError(f"every key must be text, not {key!r}")
        return list(node.values())
    return list(node) if isinstance(node, list) else []


def write_toml(data: Mapping[str, Any]) -> str:
    """A table of plain data as TOML: top-level tables and arrays of tables as sections, all below them inline."""
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
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_inline, value)) + "]"
    raise PlanError(f"{value!r} has no form in a plan file")


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False).replace("\x7f", "\\u007f")
