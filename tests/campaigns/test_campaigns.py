"""A small sample of every campaign: no fault loses anything, raises anything foreign, or takes time without end.

`python -m tests.campaigns` tries as many as you like.
"""

import sys
from pathlib import Path

import pytest

from groupwise.balance import FAMO
from tests.campaigns.campaign import outcomes
from tests.campaigns.campaigns import CAMPAIGNS
from tests.campaigns.failures import BALANCING, broken_off, case, goes_on, observed
from tests.campaigns.outcome import Kind
from tests.campaigns.worlds import Balancing, Observing, Training

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="of POSIX")
COUNTS = {
    "kill-records": 5,
    "kill-files": 3,
    "fill-records": 40,
    "fill-files": 20,
    "plans": 30,
    "bits": 12,
    "records": 40,
    "reports": 8,
}


def test_every_campaign_has_a_sample() -> None:
    assert COUNTS.keys() | {"failures"} == CAMPAIGNS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_every_fault_of_a_campaign_is_survived(name: str) -> None:
    campaign = CAMPAIGNS[name].campaign()
    for i, (kind, said) in enumerate(outcomes(name, campaign, range(COUNTS[name]), seed=1)):
        assert kind is Kind.SURVIVED, f"python -m tests.campaigns {name} --seed 1 --first {i} --count 1: {said}"


CALLS = {
    "a tick": (Training, "tick", None, ""),
    "a tick that thaws": (Training, "load_scheduler", None, ""),
    "a group that is added": (Training, "add_param_group", None, ""),
    "a step": (Training, "step", goes_on, ""),
    **{call: (Balancing, call, None, "") for call in BALANCING if call != "learn"},
    "a number that is told": (Observing, "log", None, ""),
    "a micro-batch that is told": (Observing, "micro_batch", None, ""),
    "a step that is observed": (Observing, "observed_step", observed, "observe/"),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore::groupwise.errors.GroupwiseWarning")
def test_a_call_that_is_broken_off_at_any_line_is_as_if_never_begun_or_complete(name: str, tmp_path: Path) -> None:
    world, call, judged, within = CALLS[name]

    def make() -> Training | Balancing | Observing:
        if world is Training:
            return Training(tmp_path)
        return Balancing(FAMO(), accumulates=True) if world is Balancing else Observing()

    one = case(make, call, within=within) if judged is None else case(make, call, judged, within)
    last = [one.lines - back for back in (0, 1, 3) if back < one.lines]
    for place in sorted({*range(1, one.lines + 1, max(1, one.lines // 3)), *last}):
        kind, said = broken_off(one, make(), place)
        assert kind is Kind.SURVIVED, said
