"""The lists of mutants are of the source as it is."""

import pytest

from tests.mutation.__main__ import ROOT
from tests.mutation.mutant import listed, packages


@pytest.mark.parametrize("package", packages())
def test_each_change_is_to_a_text_that_stands_once(package: str) -> None:
    texts = {mutant: (ROOT / "src" / "groupwise" / mutant.file).read_text() for mutant in listed(package)}
    assert [str(mutant) for mutant, text in texts.items() if text.count(mutant.old) != 1] == []
    assert [str(mutant) for mutant in texts if mutant.old == mutant.new] == []
    assert [str(mutant) for mutant in texts for test in mutant.tests if not (ROOT / test).exists()] == []
