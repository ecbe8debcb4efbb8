"""Markdown pages as data: their fenced blocks, links and headings.

A fence's first word is its language; the words after it are the page's wishes:

    python                     executed; all blocks of a page share one namespace and one temporary directory
    python models.py           written to that file instead, for the blocks below to import
    output                     what the last python block above it printed; a line `…` stands for any lines
    console                    `$ groupwise …` and what it printed
    toml                       a plan; `toml plan.toml` writes it to that file as well; `toml not-a-plan` is none
    yaml, json                 as toml
    sh, text                   shown, not run
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_IMAGE = re.compile(r"<img[^>]*\ssrc=\"([^\"]+)\"")
_HEADING = re.compile(r"#{1,6}\s+(.*?)\s*#*\s*")


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is the number of its first line of text."""

    page: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def file(self) -> str:
        """The file that the block is written to; empty if it is none."""
        return next((word for word in self.words if "." in word), "")

    @property
    def place(self) -> str:
        """`docs/cascade.md:12`."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    found: list[Block] = []
    fence, info, start = "", "", 0
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        marker = re.match(r"(`{3,})(.*)", line)
        if not fence and marker:
            fence, info, start = marker[1], marker[2].strip(), number
        elif fence and line.strip() == fence:
            language, *words = info.split() or [""]
            text = "".join(f"{kept}\n" for kept in lines[start : number - 1])
            found.append(Block(page, start + 1, language, tuple(words), text))
            fence = ""
    if fence:
        raise ValueError(f"{page.name}:{start}: the fence is never closed")
    return found


def prose_of(page: Path) -> str:
    """A page without its fenced blocks and inline code."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]+`", "", text)


def links_of(page: Path) -> Iterator[str]:
    """The targets of a page's links and pictures that lie in this repository."""
    prose = prose_of(page)
    targets = [*_LINK.findall(prose), *_IMAGE.findall(prose)]
    yield from (target for target in targets if not re.match(r"[a-z]+:", target))


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = (_HEADING.fullmatch(line) for line in text.splitlines())
    return {re.sub(r"[^\w\- ]", "", match[1].lower()).replace(" ", "-") for match in headings if match}
