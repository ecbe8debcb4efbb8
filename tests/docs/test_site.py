"""The documentation site, as far as it needs no build: `make docs` builds it with warnings as errors."""

import runpy
import tomllib
from types import ModuleType

import groupwise
from tests.docs.pages import DOCS

WITHOUT_REFERENCE = {"cli", "demos", "look"}  # commands, described by --help; what `parameters_of(example=…)` calls


def test_every_public_package_has_a_page_of_the_reference() -> None:
    modules = set(runpy.run_path(str(DOCS / "conf.py"))["MODULES"])
    packages = {name for name in dir(groupwise) if isinstance(getattr(groupwise, name), ModuleType)}
    public = {name for name in packages if not name.startswith("_") and hasattr(getattr(groupwise, name), "__all__")}
    assert {f"groupwise.{name}" for name in public - WITHOUT_REFERENCE} <= modules


def test_the_words_of_the_search_lead_to_pages_that_exist_and_each_word_once_to_a_page() -> None:
    searched = tomllib.loads((DOCS / "searched.toml").read_text(encoding="utf-8"))
    assert [page for page in searched if not (DOCS / f"{page}.md").exists()] == []
    assert {page: words for page, words in searched.items() if len(set(words)) < len(words)} == {}


def test_a_signature_of_the_reference_has_no_private_parameter_and_only_defaults_that_are_python() -> None:
    public = runpy.run_path(str(DOCS / "conf.py"))["_public"]
    given = "(a: dict[str, int] = <factory>, _b: Callable[[], int] = <function f.<locals>.<lambda>>, *, c=(1, 2))"
    assert public(given) == "(a: dict[str, int] = ..., *, c=(1, 2))"
