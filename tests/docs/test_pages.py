"""What the documentation says is true: its code runs, its outputs are real, its plans load, its links lead on."""

import runpy
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, ROOT, anchors_of, blocks_of, links_of
from tests.docs.running import agrees, comparisons
from tests.vision import import_torchvision, needs_torchvision

KNOWN = {"python", "output", "console", "toml", "yaml", "json", "sh", "text"}


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=page_name)


@every_page
def test_a_pages_code_runs_and_prints_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = blocks_of(page)
    if any(needs_torchvision(block.text) for block in blocks):
        import_torchvision()
    monkeypatch.chdir(tmp_path)
    for block, printed in comparisons(blocks):
        assert agrees(printed, block.text), f"{block.place}: it printed\n{printed}"


@every_page
def test_every_block_has_a_known_language(page: Path) -> None:
    strange = [f"{block.place}: {block.language!r}" for block in blocks_of(page) if block.language not in KNOWN]
    assert not strange


@every_page
def test_every_output_has_its_code(page: Path) -> None:
    waiting, orphans = False, []
    for block in blocks_of(page):
        if block.language == "output" and not waiting:
            orphans.append(block.place)
        waiting = block.language == "python" and not block.file if block.language in ("python", "output") else waiting
    assert not orphans


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            dead.append(link)
    assert not dead


def test_the_pictures_are_what_the_script_draws() -> None:
    script = runpy.run_path(str(DOCS / "make_pictures.py"))
    committed = {picture.name: picture.read_text(encoding="utf-8") for picture in script["PICTURES"].iterdir()}
    assert committed == script["draw"]()


def test_the_map_names_every_page() -> None:
    named = {(DOCS / link.partition("#")[0]).resolve() for link in links_of(DOCS / "index.md")}
    assert set(DOCS.rglob("*.md")) - {DOCS / "index.md"} <= named
