"""Running something in a child that is forked from the tests, without the tests going on in it."""

import os
import signal
import sys
import traceback
from collections.abc import Callable


def in_child(act: Callable[[], object]) -> str:
    """What `act` comes to in a forked child, as text; fails with the child's traceback if it raises."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        signal.alarm(60)  # whatever a lock of another thread does to it
        try:
            os.write(writing, str(act()).encode())
            code = 0
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, encoding="utf-8") as answer:
        told = answer.read()
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise AssertionError(f"in the child:\n{told}")
    sys.stdout.flush()
    return told
