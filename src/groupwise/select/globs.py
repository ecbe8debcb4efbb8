"""Globs over dotted names, and what a glob that matched nothing was probably meant to be.

A glob covers the whole name and `*` crosses dots, so `backbone.*` is everything under the backbone. A glob without a
wildcard is a path: the parameter of that name, or every parameter under the module of that name. `/` and `.` are the
same separator, so that a Keras path can be written either way. Case matters.

A misspelt glob is repaired part by part: each part that no name has is replaced by the nearest one that exists, and
only a repair that matches something is offered.
"""

from __future__ import annotations

import fnmatch
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from groupwise import _wrappers
from groupwise._spelling import shown
from groupwise.errors import SelectorError, nearest

Accepts = Callable[[str], object]

LONGEST: Final = 2_000
"""Characters of the longest text that a selector takes: names are shorter, and a file may come from anywhere."""

_WILD = frozenset("*?[")
_BEFORE_WILD = re.compile(r"[^*?\[]*")
_PREFIXED = re.compile(rf"^(({'|'.join(sorted(_wrappers.NAMES))}|model)\.)+")


def check_length(key: str, text: str) -> None:
    """Raise `SelectorError` for a text that is longer than any name."""
    if len(text) > LONGEST:
        raise SelectorError(f"{key}({shown(text)}) has {len(text):,} characters, more than the {LONGEST:,} of any name")


def dotted(path: str) -> str:
    """A name with `.` as its only separator."""
    return path.replace("/", ".")


@functools.lru_cache(maxsize=4096)
def compiled(glob: str) -> Accepts:
    """The test that `glob` makes of a name that went through `dotted`."""
    pattern = dotted(glob)
    if _WILD.isdisjoint(pattern):
        return re.compile(rf"{re.escape(pattern)}(\..*)?\Z", re.DOTALL).match
    return re.compile(fnmatch.translate(pattern)).match


def beginning(glob: str) -> str:
    """What every name that fits `glob` begins with: all before its first wildcard."""
    return _BEFORE_WILD.match(dotted(glob))[0]  # type: ignore[index]  # it matches the empty text too


def repairs(glob: str, names: Sequence[str], limit: int = 3) -> list[str]:
    """Up to `limit` globs or names that exist and look like `glob`, the likeliest first."""
    known = [dotted(name) for name in names]
    wanted = dotted(glob).strip(".")
    forms = dict.fromkeys(itertools.chain(_widened(wanted), _respelt(wanted, known)))
    found = list(itertools.islice((form for form in forms if _matches(form, known)), limit))
    return found or _alike(wanted, known)[:limit]


def _widened(glob: str) -> Iterator[str]:
    """The forms that people mean: under it, anywhere, without a wrapper's prefix."""
    bare = _PREFIXED.sub("", glob)
    forms = (glob, bare, f"{glob}.*", f"*.{glob}", f"*.{glob}.*", f"*.{bare}.*")
    yield from (form for form in forms if form.strip("*.") and not form.endswith(".*.*"))


def _respelt(glob: str, names: Iterable[str]) -> Iterator[str]:
    """The glob with every part that does not exist replaced by one that does."""
    parts = glob.split(".")[:32]
    words = dict.fromkeys(part for name in names for part in name.split("."))
    choices = [[part] if part in words or not _WILD.isdisjoint(part) else nearest(part, words) for part in parts]
    for chosen in itertools.islice(itertools.product(*choices), 16):
        respelt = ".".join(chosen)
        yield from (respelt, f"*.{respelt}")


def _alike(glob: str, names: Iterable[str]) -> list[str]:
    """Whole names and module paths near to the glob; of those that differ in their numbers alone, the first."""
    kinds: dict[str, str] = {}
    for name in names:
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            kinds.setdefault(re.sub(r"\d+", "0", path), path if end == len(parts) else f"{path}.*")
    return [kinds[kind] for kind in nearest(re.sub(r"\d+", "0", glob.strip("*.")[:200]), kinds)]


def _matches(glob: str, names: Iterable[str]) -> bool:
    return any(map(compiled(glob), names))
