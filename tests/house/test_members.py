"""What tools ask a package for: `help`, completion and `inspect` read every name that `dir` lists."""

import inspect
import pydoc
import sys

import pytest

import groupwise


@pytest.fixture
def without_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras as it is where it is not installed."""
    for name in [name for name in sys.modules if name.startswith("groupwise.keras")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(vars(groupwise), "keras", raising=False)
    monkeypatch.setitem(sys.modules, "keras", None)


@pytest.mark.usefixtures("without_keras")
def test_help_and_inspect_pass_over_a_package_that_lacks_what_it_needs() -> None:
    members = dict(inspect.getmembers(groupwise))
    assert set(groupwise.__all__) <= members.keys()
    assert "keras" not in members
    assert "GroupedOptimizer" in pydoc.plain(pydoc.render_doc(groupwise))


@pytest.mark.usefixtures("without_keras")
def test_a_package_that_lacks_what_it_needs_says_what() -> None:
    with pytest.raises(AttributeError, match=r"groupwise\.keras cannot be imported: .*keras"):
        groupwise.keras  # noqa: B018
    with pytest.raises(ImportError, match="keras"):
        from groupwise import keras  # noqa: F401
