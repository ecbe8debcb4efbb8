"""Where else numbers may go: one protocol, `log(mapping, step)`, and thin adapters to trackers.

The keys are `opt/<group>/<statistic>`, `task/<task>/<number>`, `pair/<task>/<task>/cosine`, `share/<task>/<group>` and
`<name>` for what was logged by name. Trackers differ in what a key may hold; the letters, digits and `-_. ` of names go
through, and everything else becomes `_`. A name that this changes gets six digits of a hash of what it was, so that two
names that differ have keys that differ (but for a chance of one in sixteen million).
"""

from groupwise.observe.sinks.callables import Call
from groupwise.observe.sinks.memory import Memory
from groupwise.observe.sinks.mlflow import MLflow
from groupwise.observe.sinks.sink import Sink, flat, safe
from groupwise.observe.sinks.tensorboard import TensorBoard
from groupwise.observe.sinks.wandb import Wandb

__all__ = ["Call", "MLflow", "Memory", "Sink", "TensorBoard", "Wandb", "flat", "safe"]
