"""The README in the distribution: read outside the repository, none of its links leads nowhere."""

import re
import runpy
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest

from tests.house.tree import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
TARGET = re.compile(r"\]\(([^)\s]+)\)")
ADDRESS = "https://example.org/owner/groupwise"


@pytest.fixture(scope="module")
def hook() -> Mapping[str, Any]:
    return runpy.run_path(str(ROOT / "hatch_build.py"))


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def code(text: str) -> list[str]:
    return re.findall(r"^```.*?^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("address", [ADDRESS, f"{ADDRESS}/"])
def test_with_an_address_every_link_is_absolute_at_the_tag_of_the_version(
    hook: Mapping[str, Any], address: str
) -> None:
    before, after = TARGET.findall(prose(README)), TARGET.findall(prose(hook["read_outside"](README, address, "1.2")))
    assert len(before) == len(after) > 20
    for old, new in zip(before, after, strict=True):
        kind = "raw" if old.endswith(".png") else "blob"
        assert new == (old if old.startswith(("https://", "#")) else f"{ADDRESS}/{kind}/v1.2/{old}")


def test_without_an_address_no_link_is_left_that_leads_nowhere_and_no_word_is_lost(hook: Mapping[str, Any]) -> None:
    text = hook["read_outside"](README, "", "1.2")
    assert all(target.startswith(("https://", "#")) for target in TARGET.findall(prose(text)))
    for word in ("start", "gallery", "compatibility", "contributing"):
        assert word in text
    assert "source distribution" in text
    assert "![" not in text


@pytest.mark.parametrize("address", ["", ADDRESS])
def test_code_is_left_as_it_is(hook: Mapping[str, Any], address: str) -> None:
    text = f'{README}\n```python\nmodel["head"](features)\n```\n'
    assert code(hook["read_outside"](text, address, "1.2")) == code(text)


def test_the_metadata_has_addresses_only_if_the_project_says_where_it_lives(hook: Mapping[str, Any]) -> None:
    assert hook["addresses"]("", "1.2") == {}
    found = hook["addresses"](ADDRESS, "1.2")
    assert found["Repository"] == ADDRESS
    assert all(url.startswith(ADDRESS) for url in found.values())


def test_the_version_is_said_once_for_each_reader() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {project['version']}\n" in citation
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[Unreleased\]$", changes, flags=re.MULTILINE)
    dated = re.findall(r"^## \[(?!Unreleased)([^\]]+)\](.*)$", changes, flags=re.MULTILINE)
    assert all(re.fullmatch(r" - \d{4}-\d{2}-\d{2}", rest) for _, rest in dated)
