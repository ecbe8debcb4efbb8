"""The documentation site, as far as it needs no build: `make docs` builds it with warnings as errors."""

import runpy
from types import ModuleType

import groupwise
from tests.docs.pages import DOCS

WITHOUT_REFERENCE = {"cli", "demos", "look"}  # commands, described by --help; what `parameters_of(example=…)` calls


def test_every_public_package_has_a_page_of_the_reference() -> None:
    modules = set(runpy.run_path(str(DOCS / "conf.py"))["MODULES"])
    packages = {name for name in dir(groupwise) if isinstance(getattr(groupwise, name), ModuleType)}
    public = {name for name in packages if not name.startswith("_") and hasattr(getattr(groupwise, name), "__all__")}
    assert {f"groupwise.{name}" for name in public - WITHOUT_REFERENCE} <= modules
