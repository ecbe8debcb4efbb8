"""The picture as a file: the suffix says which kind, the library is asked for by name, the file is whole or absent."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from groupwise._atomic import obstacle, replacing
from groupwise.errors import GroupwiseError, unknown
from groupwise.plan.preview import Preview

Writer: TypeAlias = Callable[[Preview, str], None]
Drawing: TypeAlias = Callable[[Preview, str], bytes]

_STILL = ("matplotlib", "plot")
_PAGE = ("plotly", "report")
_LIBRARY = {".png": _STILL, ".svg": _STILL, ".html": _PAGE}


def writer(path: Path) -> Writer:
    """What writes a preview, under a title, to `path`.

    Raises `GroupwiseError` for a suffix that means no picture, and where the library that draws it is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in _LIBRARY:
        raise GroupwiseError(f"--plot {path}: {unknown('suffix of a picture', suffix, _LIBRARY)}")
    library, extra = _LIBRARY[suffix]
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise GroupwiseError(
            f'--plot {path}: {suffix} is drawn by {library}, which is not installed: pip install "groupwise[{extra}]"'
        ) from error
    draw = _drawing(suffix)
    return lambda preview, title: write_whole(path, draw(preview, title))


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by a file of `data`.

    Raises `GroupwiseError` if no file can stand there, `OSError` if the disk refuses.
    """
    if reason := obstacle(path):
        raise GroupwiseError(f"--plot {path}: cannot write it: {reason}")
    with replacing(path) as file:
        file.write(data)


def _drawing(suffix: str) -> Drawing:
    if suffix == ".html":
        from groupwise.cli.page import page

        return page
    from groupwise.cli.static_image import static_image

    return lambda preview, title: static_image(preview, title, suffix.removeprefix("."))
