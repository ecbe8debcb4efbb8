"""The notebooks run from top to bottom, and are committed without outputs; `make docs` makes pages with theirs.

Where `make docs` has run them since anything they rest on was changed, what it wrote is looked at: once is enough.
"""

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.pages import DOCS, ROOT

BUILT = DOCS / "jupyter_execute/notebooks"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def since_the_last_change(path: Path) -> bool:
    """Whether a notebook that `make docs` has run rests on what is here now."""
    sources = [DOCS / "notebooks" / path.name, ROOT / "constraints.txt", *(ROOT / "src").rglob("*.py")]
    return path.exists() and path.stat().st_mtime > max(source.stat().st_mtime for source in sources)


def run(path: Path, folder: Path) -> Any:
    """The notebook with its outputs."""
    if since_the_last_change(built := BUILT / path.name):
        return read(built)
    notebook = read(path)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs_and_shows_tables_and_pictures(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = run(path, tmp_path)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("text/html") >= 3, "a resolution, a result and a verdict"
    assert "image/png" in kinds
    assert not [output for output in outputs if output.get("name") == "stderr"]


@every_notebook
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert not [cell.id for cell in code if cell.outputs or cell.execution_count is not None]


@every_notebook
def test_a_notebook_is_a_valid_one_and_begins_with_its_title(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# ")
