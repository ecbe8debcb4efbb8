"""A healthy program is left in peace: no error and no warning, whatever it is made with."""

import pytest
import torch

from tests.audit.healthy import HEALTHY, Program


@pytest.mark.parametrize("program", HEALTHY.values(), ids=HEALTHY)
def test_nothing_is_held_against_a_healthy_program(program: Program) -> None:
    torch.manual_seed(0)
    held = [str(finding) for finding in program().findings if finding.severity != "note"]
    assert not held, "\n".join(held)
