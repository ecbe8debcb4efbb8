"""What observing costs:  python -m benchmarks --only observe

Training steps (forward, backward, AdamW, zero_grad) of three models, and the part of them that passes in the observer's
hooks and in `log`, in the same steps: by default, once the observer has decided how far it stretches its cadences (here
after a turn or two instead of ten seconds); with `every=1`, which stretches nothing, over turns of twenty steps, each
of which has the norms of gradients every step, weights twice and one exact update; with `every=5`; with `activations=`
of every layer besides `every=1`; and with every family off, so that the logged loss alone is recorded. Shares of the
small model are medians over three measurements of one run; the large ones have two of these cells. The observer writes
its file. The second table reads a long run. EfficientNet-Lite0 is left out where its package is not installed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from unittest import mock

import torch
from torch import nn

from benchmarks.measure import Scale, Table, milliseconds
from groupwise.demos.model import TwoDigitNet
from groupwise.observe import Observer, budget
from groupwise.observe.budget import UNSEEN, Budget
from groupwise.observe.cadence import DEFAULT
from groupwise.records import Group, Header, Step, Writer, read

TURN = 20
Loss = Callable[[nn.Module], torch.Tensor]


def digits() -> tuple[nn.Module, Loss]:
    """The demo's CNN, without its last pooling, batches of 64."""
    images = torch.rand(64, 1, 8, 16)
    return TwoDigitNet(pooled=False), lambda model: sum(
        (out.square().mean() for out in model(images).values()), torch.zeros(())
    )


def efficientnet() -> tuple[nn.Module, Loss]:
    """EfficientNet-Lite0, 16 images of 64 x 64."""
    from efficientnet_lite_pytorch import EfficientNet

    images = torch.rand(16, 3, 64, 64).to(memory_format=torch.channels_last)
    return EfficientNet.from_name("efficientnet-lite0"), lambda model: model(images).square().mean()


def minilm() -> tuple[nn.Module, Loss]:
    """The shapes of all-MiniLM-L6-v2, 2 texts of 32 tokens."""
    words = torch.randint(0, 30522, (2, 32))
    layer = nn.TransformerEncoderLayer(384, 12, 1536, activation="gelu", batch_first=True)
    encoder = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
    return nn.Sequential(
        nn.Embedding(30522, 384), nn.LayerNorm(384), encoder
    ), lambda model: model(words).square().mean()


def one_layer() -> tuple[nn.Module, Loss]:
    """What shows that all of this runs."""
    return nn.Linear(4, 4), lambda model: model(torch.ones(4)).square().mean()


MODELS = {"digits CNN": digits, "EfficientNet-Lite0": efficientnet, "MiniLM": minilm}


class Stopwatch:
    """The processor's time between hooks that stand on either side of the observer's."""

    def __init__(self) -> None:
        self.seconds, self._began = 0.0, 0.0

    def start(self, *_: object) -> None:
        """Before the observer's hook."""
        self._began = time.thread_time()

    def stop(self, *_: object) -> None:
        """After it."""
        self.seconds += time.thread_time() - self._began


def watched(optimizer: torch.optim.Optimizer, layers: Iterable[nn.Module], press: Callable[..., None]) -> None:
    """Have the stopwatch pressed in every hook that the observer may have: of the step, and of the layers."""
    optimizer.register_step_pre_hook(press)
    optimizer.register_step_post_hook(press)
    for layer in layers:
        layer.register_forward_pre_hook(press)
        layer.register_forward_hook(press)


def _two_groups(model: nn.Module) -> torch.optim.AdamW:
    params = list(model.parameters())
    matrices = {"params": [p for p in params if p.ndim > 1], "name": "weights"}
    return torch.optim.AdamW([matrices, {"params": [p for p in params if p.ndim < 2], "name": "rest"}], lr=1e-4)


def share(
    make: Callable[[], tuple[nn.Module, Loss]],
    folder: Path,
    every: int | Mapping[str, int] | None,
    runs: int,
    activations: bool = False,
) -> tuple[float, float, int]:
    """Seconds of a step without the observer, the observer's part of it, and in how many steps gradients are taken."""
    torch.manual_seed(0)
    model, loss_of = make()
    optimizer = _two_groups(model)
    watch = Stopwatch()
    layers = list(model.modules()) if activations else []
    watched(optimizer, layers, watch.start)
    by: Literal["layer", "group"] = "layer" if activations else "group"
    observer = Observer(
        optimizer, folder, every, by, model=model if activations else None, activations=activations, step=1
    )
    if every is None:  # of the processor's time, as everything here
        observer._recorder._budget = Budget(None, TURN, time.thread_time, UNSEEN)
    settling = 1 if every is not None and runs == 1 else TURN
    watched(optimizer, layers, watch.stop)

    def turn(steps: int = TURN) -> None:
        for _ in range(steps):
            loss = loss_of(model)
            loss.backward()
            watch.start()
            observer.log(loss=loss)
            watch.stop()
            optimizer.step()
            optimizer.zero_grad()

    with mock.patch.multiple(budget, SETTLING=1, UPDATES=TURN, SECONDS=0.0):
        turn(settling)
        while observer._recorder._budget is not None:
            turn()
    stretched = observer._recorder._cadence.every["gradients"]
    found = []
    for _ in range(runs):
        watch.seconds, began = 0.0, time.thread_time()
        for _ in range(stretched or 1):
            turn()
        plain = time.thread_time() - began - watch.seconds
        found.append((plain / (stretched or 1) / TURN, watch.seconds / plain))
    observer.close()
    seconds, shares = zip(*found, strict=True)
    return statistics.median(seconds), statistics.median(shares), stretched


def steps(folder: Path, scale: Scale) -> Table:
    """The table of training steps."""
    rows = []
    for name, make in ({"one layer": one_layer} if scale.quick else MODELS).items():
        if make is efficientnet and find_spec("efficientnet_lite_pytorch") is None:
            scale.say(f"{name} is left out: efficientnet_lite_pytorch is not installed")
            continue
        scale.say(name)
        small = make in (digits, one_layer)
        runs = 3 if make is digits else 1
        usual_every = 5 if scale.quick else None  # on one layer the observer needs long to decide how far it stretches
        seconds, usual, stretched = share(make, folder / name, usual_every, runs)
        shares = [usual, share(make, folder / f"{name} 1", 1, runs)[1]]
        rows.append([name, milliseconds(seconds), str(stretched), *(f"{part:.1%}" for part in shares)])
        if not small:
            rows[-1] += ["–"] * 3
            continue
        rare = share(make, folder / f"{name} 5", 5, runs)[1]
        layers = share(make, folder / f"{name} layers", 1, runs, activations=True)[1]
        bare, least, _ = share(make, folder / f"{name} off", dict.fromkeys(DEFAULT, 0), 2 * runs)
        rows[-1] += [f"{rare:.1%}", f"{layers:.1%}", milliseconds(bare * least)]
    kinds = ["by default", "every=1", "every=5", "every=1, activations"]
    columns = ["model", "step", "stretched", *kinds, "every family off"]
    return Table("A training step, and what observing adds", columns, rows)


def written(folder: Path, groups: int, count: int) -> list[str]:
    """Write and read that many steps of so many groups."""
    names = [f"group {i}" for i in range(groups)]
    header = Header(groups=tuple(Group(name, "AdamW", 1, 1) for name in names))
    began = time.thread_time()
    with Writer(folder, header) as writer:
        for i in range(count):
            numbers = {name: {"grad_norm": 0.123456789, "clip_factor": 1.0} for name in names}
            values = {name: {"lr": 1e-3, "beta1": 0.9, "beta2": 0.98} for name in names}
            writer.write(Step(i, i / 10, values, numbers, {"loss": 0.5}))
    written = time.thread_time()
    size = sum(path.stat().st_size for path in folder.glob("part-*"))
    run = read(folder)
    done = time.thread_time()
    run.series("groups", names[0], "grad_norm")
    found = time.thread_time() - done
    times = [f"{seconds:.1f} s" for seconds in (written - began, done - written)]
    return [str(groups), f"{size / 1e6:.0f} MB", *times, milliseconds(found)]


def tables(scale: Scale) -> Iterator[Table]:
    """Training steps, and the files of a long run."""
    count = 1_000 if scale.quick else 50_000
    with tempfile.TemporaryDirectory() as scratch:
        yield steps(Path(scratch), scale)
        scale.say(f"{count:,} records")
        rows = [written(Path(scratch) / f"{groups}", groups, count) for groups in (1, 4)]
        yield Table(f"{count:,} records", ["groups", "size", "written", "read", "one series"], rows)
