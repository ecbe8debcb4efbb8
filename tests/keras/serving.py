"""The process behind `backends.Backend`: runs the checks whose node ids it reads, one after the other."""

import contextlib
import importlib
import json
import os
import sys
from typing import Any

import pytest


class _Reports:
    """Collects what pytest says about the cases of one check."""

    def __init__(self) -> None:
        self.passed = self.skipped = 0
        self.text = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed += report.passed and report.when == "call"
        self.skipped += report.skipped
        self._fail(report)

    def pytest_collectreport(self, report: Any) -> None:
        self._fail(report)

    def _fail(self, report: Any) -> None:
        if report.failed:
            captured = "".join(f"\n{title}\n{content}" for title, content in report.sections)
            self.text += f"{report.nodeid}\n{report.longreprtext}{captured}\n"


OPTIONS = ["-p", "no:cacheprovider", "-p", "no:xdist"]
KNOWN = [  # what Keras itself says beside numpy 2 and this torch
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",
]


def _configure_tensorflow() -> None:
    """Let the host be two devices, and run graphs as they were traced, as `XLA_FLAGS` has it for jax: a graph of a few
    steps is not worth optimising (a sixth of the checks' time).
    """
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        config: Any = importlib.import_module("tensorflow").config
        host = config.list_physical_devices("CPU")[0]
        config.set_logical_device_configuration(host, [config.LogicalDeviceConfiguration()] * 2)
        config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def main() -> None:
    """Answer each line with a line, on a standard output that nothing else writes to."""
    _configure_tensorflow()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            reports = _Reports()
            check, os.environ["EXCHANGE"] = json.loads(line)
            with contextlib.redirect_stdout(sys.stderr):
                pytest.main([check, *OPTIONS, *(f"-W{known}" for known in KNOWN)], plugins=[reports])
            answers.write(json.dumps(vars(reports)) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
