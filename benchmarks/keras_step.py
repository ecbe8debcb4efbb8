"""One training step under Keras:  python -m benchmarks --only keras-step

`train_on_batch` of a plan beside plain Keras on the same model and batch: one AdamW over everything, and AdamW with SGD
for the last layer, which plain Keras writes as a `MultiOptimizer`. A plan of one group says what the frame costs, one
of two what another algorithm does, one of four what no decay on biases adds. Times are the process's own seconds on the
cores, all threads together, so waiting for a neighbour does not count. A process has one backend, so each has its own
process (`keras_race`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.measure import Scale, Table

BACKENDS = ("torch", "jax")
REFERENCE, PARTS = "AdamW", "MultiOptimizer"
PLANS = ("plan, 1 group", "plan, 2 algorithms", "plan, 4 groups")


def tables(scale: Scale) -> Iterator[Table]:
    """One table, the backends below one another."""
    rows = []
    for backend in BACKENDS[: 1 if scale.quick else None]:
        given = {**os.environ, "KERAS_BACKEND": backend, "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", "benchmarks.keras_race", str(scale.seconds(10.0))]
        done = subprocess.run(command, env=given, check=True, stdout=subprocess.PIPE, text=True)
        rows += json.loads(done.stdout.splitlines()[-1])
    yield Table("A step under Keras, ratios to AdamW", ["model", REFERENCE, PARTS, *PLANS], rows)
