"""Tables on a page: between `<!-- benchmark: NAME -->` and `<!-- end of benchmark -->` stands what was measured last.

Everything else on the page is prose and stays. The file is replaced whole or not at all.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.measure import Table
from groupwise._atomic import replacing

PAGE = Path(__file__).parent.parent / "docs/performance.md"
_BLOCK = re.compile(r"(<!-- benchmark: (?P<name>[a-z-]+) -->\n).*?(<!-- end of benchmark -->)", re.DOTALL)


def blocks_of(text: str) -> list[str]:
    """The names of the blocks on a page."""
    return [found["name"] for found in _BLOCK.finditer(text)]


def rewritten(text: str, measured: Mapping[str, Sequence[Table]], where: str) -> str:
    """The page with new blocks for what was measured; blocks of other benchmarks stay. No name may lack its block.

    Raises:
        ValueError: a name without a block.
    """
    missing = sorted(measured.keys() - set(blocks_of(text)))
    if missing:
        raise ValueError(f"no <!-- benchmark: … --> on the page for {', '.join(missing)}")

    def block(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in measured:
            return found[0]
        drawn = "\n\n".join(map(markdown, measured[name]))
        return f"{found[1]}{drawn}\n\n{where}\n{found[3]}"

    return _BLOCK.sub(block, text)


def rewrite(path: Path, measured: Mapping[str, Sequence[Table]], where: str) -> None:
    """The same on the file."""
    text = rewritten(path.read_text(encoding="utf-8"), measured, where)
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def markdown(table: Table) -> str:
    """One table, under its title."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join([f"**{table.title}**", "", *(f"| {' | '.join(row)} |" for row in lines)])


def machine(threads: int) -> str:
    """Where and with what it was measured, in a line."""
    names = ("torch", "torchjd", "keras")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"*{_processor()}, {threads} thread, Python {platform.python_version()}, {versions}.*"


def _processor() -> str:
    """The name that Linux has for it, or Python."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.+)", info.read_text(encoding="utf-8")) if info.exists() else None
    return named[1].strip() if named else platform.processor() or platform.machine()
