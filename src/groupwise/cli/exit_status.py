"""The exit of the command line: whatever goes wrong inside leaves as one message and an exit status.

    status 2      what was given cannot be used; the message says what, where, and the way out
    status 130    interrupted: no message, the person knows

A message is one line on stderr, never a traceback. Warnings are one line each. What a terminal cannot encode is spelled
with what it can, and control characters of a file never reach it.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import typer
from rich.console import Console
from rich.text import Text

from groupwise._spelling import printable
from groupwise.errors import GroupwiseError, GroupwiseWarning

__all__ = ["WIDTH", "console", "exit_status", "printable", "raised"]

WIDTH = 100
"""Columns where no terminal says how many it has."""

_OURS = Path(__file__).parents[1]
_SPELLED = {"→": ">", "×": "x", "·": ".", "…": "~", "±": "~", "–": "-", "•": "*"} | dict(
    zip("▁▂▃▄▅▆▇█", "_.:-=+#@", strict=True)
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")


@contextlib.contextmanager
def exit_status() -> Iterator[None]:
    """Around the body of every command."""
    with warnings.catch_warnings():
        warnings.showwarning = _warned
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="groupwise")
        try:
            yield
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except GroupwiseError as error:
            _say("error", "bold red", str(error))
            raise typer.Exit(2) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
                raise  # rich's way to leave
            _say("error", "bold red", _message(error))
            raise typer.Exit(2) from None


def console() -> Console:
    """Where a command writes: as wide as the terminal or COLUMNS says, else `WIDTH`; a plan's text is never markup."""
    out = Console(highlight=False, markup=False, emoji=False)
    piped = not out.is_terminal and not os.environ.get("COLUMNS", "").isdigit()
    return Console(highlight=False, markup=False, emoji=False, width=WIDTH) if piped else out


def _message(error: BaseException) -> str:
    """What went wrong inside. A mistake in groupwise is alone what its own code raised: not what the system refuses,
    not a package that is missing, and nothing that the caller's code or a library raised.
    """
    if isinstance(error, OSError):
        return f"the system refuses: {error}"
    if isinstance(error, ImportError):
        return f"an import failed: {error}"
    if isinstance(error, MemoryError):
        return f"the memory is full{f': {error}' if str(error) else ''}"
    if _is_ours(error):
        return f"{raised(error)}; that is a mistake in groupwise: please report it"
    return raised(error)


def _is_ours(error: BaseException) -> bool:
    """Whether code of groupwise raised it, or called into a library that did."""
    libraries = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(f"{_OURS}{os.sep}"):
            return True
        if not frame.filename.startswith(("<frozen", *libraries)):
            return False
    return False


def raised(error: BaseException) -> str:
    """`raised ValueError: text (functional.py:12, from model.py:3)`: an error, its place, and the caller's line."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    places = _syntax_place(error) if isinstance(error, SyntaxError) else _places(error)
    said = f"raised {type(error).__name__}" + (f": {text}" if text else "")
    return said + (f" ({', from '.join(places)})" if places else "")


def _syntax_place(error: SyntaxError) -> list[str]:
    return [f"{Path(error.filename).name}:{error.lineno}"] if error.filename else []


def _places(error: BaseException) -> list[str]:
    """The line that raised, and the last line before it that belongs to no installed library."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    libraries = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
    own = [f for f in frames if not f.filename.startswith((*libraries, str(_OURS)))]
    return list(dict.fromkeys(f"{Path(f.filename).name}:{f.lineno}" for f in [*frames[-1:], *own[-1:]]))


def _say(what: str, style: str, text: str) -> None:
    err = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    err.print(Text.assemble((f"{what}: ", style), printable(text)))


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    origin = "" if issubclass(category, GroupwiseWarning) else f" ({category.__name__}, {Path(filename).name}:{lineno})"
    _say("warning", "yellow", f"{message}{origin}")


def _spell(error: UnicodeError) -> tuple[str, int]:
    """The error handler of an encoding: what it has no byte for, in plainer characters."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = re.sub(
        "[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda run: "^" + run[0].translate(_SUPERSCRIPTS), error.object[error.start : error.end]
    )
    return "".join(char if char.isascii() else _SPELLED.get(char, "?") for char in lost), error.end


codecs.register_error("groupwise", _spell)
