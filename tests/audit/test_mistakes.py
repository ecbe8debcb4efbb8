"""Each mistake gives its finding, and nothing else."""

import pytest

from groupwise.audit import CHECKS
from tests.audit.mistakes import MISTAKES, Mistake

every_mistake = pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)


@every_mistake
def test_a_mistake_gives_exactly_its_finding(mistake: Mistake) -> None:
    findings, parameters = mistake.program()
    assert [(finding.check, finding.severity) for finding in findings] == [(mistake.check, mistake.severity)]
    assert set(findings[0].parameters) == set(parameters)
    assert len(findings[0].parameters) == len(set(parameters))


def test_every_check_has_a_mistake_at_its_severity() -> None:
    shown = {(mistake.check, mistake.severity) for mistake in MISTAKES.values()}
    assert {(check.name, check.severity) for check in CHECKS} <= shown


def test_what_a_reentrant_checkpoint_cuts_off_is_told_the_way_out() -> None:
    remedies = {
        name: mistake.program()[0][0].remedy for name, mistake in MISTAKES.items() if mistake.check == "unreached"
    }
    told = {name for name, remedy in remedies.items() if "use_reentrant=False" in remedy}
    assert told == {
        "blocks_that_a_reentrant_checkpoint_cuts_off_behind_a_frozen_stem",
        "blocks_that_a_plan_keeps_from_training_while_it_freezes_the_stem_below_their_checkpoint",
    }
