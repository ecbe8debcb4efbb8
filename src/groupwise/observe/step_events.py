"""Events that only the steps of an optimizer show: each is written to the run, and some are warned of.

another state    a run goes on, and its optimizer begins: once, after the first update
moving norms     frozen norms whose running statistics follow the data: once, at the first update that is looked at
skipped          a `GradScaler` whose scale fell has left an update out
groups           parameter groups are not what they were
budget           cadences were stretched, because observing took too much of the training's time
"""

from __future__ import annotations

from typing import final

import torch

from groupwise._spelling import counted
from groupwise._warning import warn
from groupwise.errors import listed
from groupwise.observe.budget import SHARE
from groupwise.observe.cadence import Cadence
from groupwise.observe.folders import SEEN_TO_STEP
from groupwise.observe.grouping import Grouping, GroupSnapshot
from groupwise.observe.pending import Pending
from groupwise.observe.programs import scale_of
from groupwise.observe.run_log import RunLog
from groupwise.records import Group


@final
class StepEvents:
    """Notices them at the right moment of a step.

    Args:
        optimizer: whose steps.
        grouping: its groups.
        log: where events go.
        pending: the records that stand before an event.
        scaler: a `GradScaler`, if one is used.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        grouping: Grouping,
        log: RunLog,
        pending: Pending,
        scaler: torch.amp.GradScaler | None,
    ) -> None:
        self._optimizer, self._grouping, self._log, self._pending = optimizer, grouping, log, pending
        self._scaler, self._scale = scaler, scale_of(scaler)
        self.in_doubt, self.looked = log.goes_on, False

    def write(self, step: int, event: str, text: str, groups: tuple[Group, ...] | None = None) -> None:
        """Write an event at a step, after the records before it."""
        self._pending.write(now=True)
        self._log.event(step, event, text, groups)

    def begin(self) -> None:
        """An update begins: an optimizer that has a state, or was stepped before, does not begin anew."""
        self.in_doubt = self.in_doubt and not self._optimizer.state and self._optimizer not in SEEN_TO_STEP

    def restarted(self, step: int) -> None:
        """After an update: whether a run went on whose optimizer began: it has a state now, and had none."""
        in_doubt, self.in_doubt = self.in_doubt, False
        if in_doubt and self._optimizer.state:
            text = (
                f"The optimizer had no state when the run went on at step {step:,}. "
                "Either its state was not loaded, or this is another training"
            )
            self.write(step, "warning", text)
            warn(f"{text}: load the state before the first update, or give this training a folder of its own")

    def regrouped(self, step: int, snapshot: GroupSnapshot) -> None:
        """Whether the groups are others than those that were written."""
        if (groups := self._log.regrouped(snapshot)) is not None:
            self.write(step, "groups", f"{counted(len(groups), 'group')} from here on", groups)

    def look_once(self, step: int) -> None:
        """What only the first update shows of a model: by then it is in the mode that it trains in."""
        looked, self.looked = self.looked, True
        if not looked and (norms := self._grouping.moving_statistics()):
            text = (
                f"The running statistics of {counted(len(norms), 'frozen norm')} move ({listed(norms, 4)}). "
                "The parameters stay, and the statistics follow the data: `.eval()` on the norms holds them"
            )
            self.write(step, "warning", text)

    def skipped(self, step: int) -> bool:
        """Whether a scaler has left out the update before, which its scale shows; a fused step says so itself."""
        if self._scaler is None or getattr(self._optimizer, "_step_supports_amp_scaling", False):
            return False
        before, self._scale = self._scale, self._scaler.get_scale()
        if not self._scale < before:
            return False
        self.write(step, "skipped", f"an update before this one; the loss scale is {self._scale:g} now")
        return True

    def stretched(self, step: int, seconds: float, share: float, cadence: Cadence) -> None:
        """That cadences were stretched: a step took so many seconds, and observing that share of them."""
        often = ", ".join(f"{family} every {every}" for family, every in cadence.every.items() if every)
        text = f"Observing took {share:.1%} of a step of {1e3 * seconds:.3g} ms, and {SHARE:.1%} is the budget"
        self.write(step, "cadence", f"{text}: from here on {often} updates")
