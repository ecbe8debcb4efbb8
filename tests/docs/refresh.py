"""Write into pages what their code prints now:  python -m tests.docs.refresh docs/cascade.md

Blocks of output and console are replaced; one with a line `…` is left alone. Read the difference before you commit it.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

from tests.docs.pages import blocks_of
from tests.docs.running import ANY_LINES, agrees, comparisons
from tests.vision import import_torchvision, needs_torchvision


def refresh(page: Path) -> int:
    """Rewrite one page; return how many blocks changed."""
    blocks = blocks_of(page)
    if any(needs_torchvision(block.text) for block in blocks):
        import_torchvision()
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
        compared = list(comparisons(blocks))
    stale = [(block, new) for block, new in compared if not agrees(new, block.text)]
    lines = page.read_text(encoding="utf-8").splitlines()
    for block, printed in reversed(stale):
        if ANY_LINES not in block.text.splitlines():
            length = len(block.text.splitlines())
            lines[block.line - 1 : block.line - 1 + length] = [line.rstrip() for line in printed.rstrip().splitlines()]
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(stale)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        sys.stdout.write(f"{name}: {refresh(Path(name).resolve())} blocks changed\n")
