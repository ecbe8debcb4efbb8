"""The script of the page on several processes, under torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, blocks_of


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_the_pages_script_runs_on_two_ranks_and_learns_what_one_process_learns(kind: str, tmp_path: Path) -> None:
    blocks = blocks_of(DOCS / "distributed.md")
    (script,) = (block.text for block in blocks if block.file == "train.py")
    shown = next(block.text for block in blocks if block.language == "output")
    (tmp_path / "train.py").write_text(script, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py", kind]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        launch, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in shown.splitlines()
