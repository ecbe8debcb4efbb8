"""Running a page: every block in order, in one namespace, in the current directory."""

import contextlib
import io
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from groupwise import Plan
from tests.docs.pages import Block

ANY_LINES = "…"
NOT_A_PLAN = "not-a-plan"
WIDTH = 100
_PLANS = ("toml", "yaml", "json")


def comparisons(blocks: Sequence[Block]) -> Iterator[tuple[Block, str]]:
    """Run the blocks of one page; yield every block that shows an output, with the real one."""
    python = [block for block in blocks if block.language == "python" and not block.file]
    below = {
        max(b.line for b in python if b.line < shown.line): shown for shown in blocks if shown.language == "output"
    }
    for block, printed in results(blocks):
        shown = block if block.language == "console" else below.get(block.line)
        if shown is not None:
            yield shown, printed


def results(blocks: Iterable[Block]) -> Iterator[tuple[Block, str]]:
    """Run the blocks of one page; yield each that can be run with what it printed."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with importable(Path.cwd()):
        yield from ((block, _result(block, namespace)) for block in blocks if _runs(block))


def _result(block: Block, namespace: dict[str, Any]) -> str:
    if block.language == "console":
        return "".join(_called(line.removeprefix("$ ")) for line in commands(block))
    if block.language in _PLANS and NOT_A_PLAN not in block.words:
        Plan.loads(block.text, allow=("pytorch_optimizer",), format=block.language)
    if block.file:
        Path(block.file).write_text(block.text, encoding="utf-8")
    return _executed(block, namespace) if block.language == "python" and not block.file else ""


def _runs(block: Block) -> bool:
    return block.language in ("python", "console", *_PLANS)


def commands(block: Block) -> list[str]:
    """The lines of a console block that are typed."""
    return [line for line in block.text.splitlines() if line.startswith("$ ")]


def agrees(printed: str, shown: str) -> bool:
    """Whether a page shows what was printed. Spaces at line ends do not count."""
    return _agree([line.rstrip() for line in printed.rstrip().splitlines()], shown.rstrip().splitlines())


def _agree(printed: Sequence[str], shown: Sequence[str]) -> bool:
    if ANY_LINES not in shown:
        return list(printed) == list(shown)
    cut = shown.index(ANY_LINES)
    head, tail = shown[:cut], shown[cut + 1 :]
    starts = range(cut, len(printed) + 1)
    return list(printed[:cut]) == list(head) and any(_agree(printed[start:], tail) for start in starts)


def _executed(block: Block, namespace: dict[str, Any]) -> str:
    code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec", dont_inherit=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # Keras' own, with numpy 2
        exec(code, namespace)
    return printed.getvalue()


@contextlib.contextmanager
def importable(directory: Path) -> Iterator[None]:
    """Modules in `directory` can be imported, and are forgotten afterwards."""
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.path.remove(str(directory))
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(directory)):
                del sys.modules[name]


def _called(command: str) -> str:
    """What `groupwise …` prints, errors included, in a terminal of `WIDTH` columns without colours."""
    program, *arguments = shlex.split(command)
    if program != "groupwise":
        raise ValueError(f"pages run groupwise only, not {program!r}")
    door = [sys.executable, "-c", "from groupwise.cli import main; main()", *arguments]
    environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(door, capture_output=True, check=False, text=True, encoding="utf-8", env=environment)
    return f"$ {command}\n{done.stdout}{done.stderr}"
