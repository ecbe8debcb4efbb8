"""An exception at a place of our own source: the n-th line that is run, as an interrupt or a lack of memory would come.

Lines of a finaliser or a weak reference's callback do not count: what is raised there goes nowhere.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import groupwise

SOURCE: Final = str(Path(groupwise.__file__).parent)


class Injected(Exception):
    """What is raised."""


class Lines:
    """Counts the lines that are run in files under some folders of the source, and raises at one of them."""

    def __init__(self, place: int = 0, within: str = "") -> None:
        self.seen, self.at = 0, ""
        self._place, self._folder, self._known = place, f"{SOURCE}/{within}", dict[CodeType, bool]()

    def run(self, work: Callable[[], object]) -> BaseException | None:
        """Do it; what it raised."""
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            work()
        except Exception as error:
            return error
        finally:
            sys.settrace(before)
        return None

    def _call(self, frame: FrameType, event: str, _arg: Any) -> Any:
        code = frame.f_code
        ours = self._known.get(code)
        if ours is None:
            ours = self._known[code] = code.co_filename.startswith(self._folder) and code.co_name != "__del__"
        return self._line if ours else None

    def _line(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "line":
            self.seen += 1
            if self.seen == self._place:
                self.at = f"{frame.f_code.co_filename.removeprefix(SOURCE)[1:]}:{frame.f_lineno}"
                raise Injected(self.at)
        return self._line


def is_injected(error: BaseException | None) -> bool:
    """Whether an error is ours, or was raised because of it."""
    while error is not None:
        if isinstance(error, Injected) or str(error).find(".py:") > 0:
            return True
        error = error.__cause__ or error.__context__
    return False
