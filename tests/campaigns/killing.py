"""Work in a forked child that is killed without warning."""

import contextlib
import os
import signal
import time
from collections.abc import Callable


def killed(work: Callable[[], object], seconds: float) -> None:
    """Fork a child that does this until it is killed, so many seconds after it began."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            signal.alarm(30)
            os.write(writing, b"!")
            work()
        os._exit(9)
    os.close(writing)
    with open(reading, "rb", buffering=0) as begun:
        begun.read(1)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status):
        raise RuntimeError(f"the child ended by itself: {os.waitstatus_to_exitcode(status)}")
