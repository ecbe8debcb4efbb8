"""What imports cost:  python -m benchmarks --only imports

The processor's time of new processes, which take turns: what needs no torch beside an empty process, and what needs it
beside `import torch`. Byte code is cached in a folder of its own, so the first round, which does not count, compiles.
`--quick` takes `import groupwise` alone. In the table "…" is `from groupwise`.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.measure import Scale, Table, milliseconds

NOTHING, TORCH = "pass", "import torch"
SHOW = """
import sys
from groupwise.cli import main
sys.argv[1:] = ["show", "plan.toml", "--model", "net:build"]
main()
"""
COMMANDS = {
    "import groupwise": ("import groupwise", NOTHING),
    "… import Plan, Rule": ("from groupwise import Plan, Rule", NOTHING),
    "import groupwise.optim, torch": ("import groupwise.optim, torch", TORCH),
    "… import GroupedOptimizer, PlanScheduler": ("from groupwise import GroupedOptimizer, PlanScheduler", TORCH),
    "… import Balancer": ("from groupwise import Balancer", TORCH),
    "… import Observer": ("from groupwise import Observer", TORCH),
    "groupwise show of a small plan": (SHOW, TORCH),
}
PLAN = '[[rule]]\nmatch = "*"\noptimizer = "AdamW"\nlr = 1e-3\n'
NET = "import torch\n\ndef build():\n    return torch.nn.Linear(2, 2)\n"


def tables(scale: Scale) -> Iterator[Table]:
    """One table: the time, and what it is above the process that it is held against."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "plan.toml").write_text(PLAN, encoding="utf-8")
        (folder / "net.py").write_text(NET, encoding="utf-8")
        given = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        given["PYTHONPATH"] = os.pathsep.join([*map(os.path.abspath, sys.path[1:]), scratch])
        given["PYTHONPYCACHEPREFIX"] = str(folder / "cache")
        commands = dict([*COMMANDS.items()][: 1 if scale.quick else None])
        programs = dict.fromkeys(program for pair in commands.values() for program in reversed(pair))
        times: dict[str, list[float]] = {program: [] for program in programs}
        for turn in range(2 if scale.quick else 8):
            for program in programs:
                seconds = _seconds(program, given, folder)
                times[program] += [seconds] if turn else []
    rows = []
    for name, (program, other) in commands.items():
        above = [one - two for one, two in zip(times[program], times[other], strict=True)]
        beside = "an empty process" if other == NOTHING else other
        spread = milliseconds((max(above) - min(above)) / 2)
        cells = [milliseconds(statistics.median(times[program])), beside]
        rows.append([name, *cells, f"{milliseconds(statistics.median(above))} ± {spread}"])
    yield Table("New processes", ["program", "time", "beside", "above that"], rows)


def _seconds(program: str, given: Mapping[str, str], folder: Path) -> float:
    """Of one process, on the cores."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], env=given, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
