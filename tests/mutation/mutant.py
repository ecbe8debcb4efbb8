"""A mutant: one small change of meaning to one file, and the tests that ought to notice it."""

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import utime
from pathlib import Path

LISTS = Path(__file__).parent
_LATER = 10**12  # nanoseconds, so that no compiled file passes for the changed one's


@dataclass(frozen=True)
class Mutant:
    """`old`, which stands once in `file`, becomes `new`; where no test can tell, `equivalent` says why."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    equivalent: str = ""

    def __str__(self) -> str:
        line = next((a for a, b in zip(self.old.splitlines(), self.new.splitlines(), strict=False) if a != b), self.old)
        return f"{self.file}: {line.strip()}"

    @contextmanager
    def applied(self, source: Path) -> Iterator[None]:
        """The change, to a copy of the package, for as long as the block lasts."""
        path = source / self.file
        text, stat = path.read_text(), path.stat()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} has this {text.count(self.old)} times, not once: {self.old}")
        try:
            path.write_text(text.replace(self.old, self.new))
            utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + _LATER))
            yield
        finally:
            path.write_text(text)
            utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def listed(package: str) -> list[Mutant]:
    """The mutants of a package, from its list."""
    table = tomllib.loads((LISTS / f"{package}.toml").read_text())
    return [
        Mutant(entry["file"], entry["old"], entry["new"], tuple(entry["tests"]), entry.get("equivalent", ""))
        for entry in table["mutant"]
    ]


def packages() -> list[str]:
    """The packages that have a list."""
    return sorted(path.stem for path in LISTS.glob("*.toml"))
