"""A probe on the disk, so that one that was interrupted goes on: what was run, under a digest of what it was run on.

The file is JSON, replaced as a whole after each contestant (`groupwise._atomic`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

from groupwise._atomic import obstacle, replacing
from groupwise._paths import path_of
from groupwise.errors import ProbeError, within
from groupwise.probing.job import Job, tensors_of
from groupwise.probing.trial import Setting, Trial

VERSION: Final = 2


@final
@dataclass(frozen=True)
class Saved:
    """Where a probe is kept, and what of."""

    path: Path
    digest: str

    @staticmethod
    def at(path: str | os.PathLike[str], job: Job, budget: float) -> Saved:
        """Raises `ProbeError` where no file can be, or one of another probe is."""
        place = path_of(path, ProbeError, "the file of a probe")
        if reason := obstacle(place):
            raise ProbeError(f"{place}: cannot write the file: {reason}")
        saved = Saved(place, digest_of(job, budget))
        saved.trials()
        return saved

    def trials(self) -> dict[tuple[Setting, int, int], Trial]:
        """What is in the file, by what was run; nothing if there is none. Raises `ProbeError`."""
        if not self.path.exists():
            return {}
        with within(str(self.path)):
            try:
                data = json.loads(self.path.read_text(encoding="utf-8"))
                if data["digest"] != self.digest or data["version"] != VERSION:
                    raise ProbeError(
                        "it is of another probe: the model, the plan, the lengths or the budget differ; give a new file"
                    )
                found = [_trial(each) for each in data["trials"]]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                if isinstance(error, ProbeError):
                    raise
                raise ProbeError("it is not the file of a probe, or it is damaged: give a new file") from error
        return {(trial.setting, trial.seed, trial.steps): trial for trial in found}

    def write(self, trials: Iterable[Trial]) -> None:
        """Replace the file."""
        data = {"version": VERSION, "digest": self.digest, "trials": [_plain(asdict(trial)) for trial in trials]}
        with replacing(self.path) as file:
            file.write(json.dumps(data).encode())


def digest_of(job: Job, budget: float) -> str:
    """Of the plan, the lengths, the budget, and the shapes and first values of the weights."""
    told = hashlib.blake2b(digest_size=16)
    plan = job.plan
    widths = None if job.widths is None else (job.widths.narrow, job.widths.wide)
    lengths = (job.total_steps, job.steps_per_epoch, budget, widths)
    told.update(repr((plan.rules, plan.clip, dict(plan.values), plan.balance, plan.parts, lengths)).encode())
    for tensor in tensors_of(job.fresh(1)):
        told.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        told.update(repr(tensor.detach().flatten()[:64].double().tolist()).encode())
    return told.hexdigest()


def _plain(value: Any) -> Any:
    """What is not finite as text, which JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _trial(data: Mapping[str, Any]) -> Trial:
    own = data["setting"]
    weights = tuple((str(task), float(weight)) for task, weight in own["weights"])
    setting = Setting(float(own["rate"]), int(own["part"]), float(own["factor"]), weights, float(own["adamw"]))
    judged = [tuple({task: float(x) for task, x in batch.items()} for batch in data[key]) for key in ("start", "end")]
    losses = tuple(map(float, data["losses"]))
    return Trial(setting, int(data["seed"]), int(data["steps"]), losses, judged[0], judged[1])
