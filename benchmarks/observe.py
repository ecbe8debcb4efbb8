"""What observing costs:  python benchmarks/observe.py

Whole training steps (forward, backward, AdamW, zero_grad) of three models, plain and observed at the default cadence.
A turn is twenty steps, so that it holds everything that the cadence has: norms of gradients every step, weights twice,
one exact update. The observer writes its file. The second table reads a run of a million records. It needs the shapes
of EfficientNet-Lite0: `pip install --no-deps efficientnet-lite-pytorch==0.1.0`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet
from measure import Work, milliseconds, race, table, threads_from_arguments
from torch import nn

from groupwise.demos.model import TwoDigitNet
from groupwise.observe import Observer
from groupwise.records import Group, Header, Step, Writer, read

TURN = 20
Loss = Callable[[nn.Module], torch.Tensor]


def digits() -> tuple[nn.Module, Loss]:
    """The demo's CNN, batches of 64."""
    images = torch.rand(64, 1, 8, 16)
    return TwoDigitNet(), lambda model: sum((out.square().mean() for out in model(images).values()), torch.zeros(()))


def efficientnet() -> tuple[nn.Module, Loss]:
    """EfficientNet-Lite0, 16 images of 64 x 64."""
    images = torch.rand(16, 3, 64, 64).to(memory_format=torch.channels_last)
    return EfficientNet.from_name("efficientnet-lite0"), lambda model: model(images).square().mean()


def minilm() -> tuple[nn.Module, Loss]:
    """The shapes of all-MiniLM-L6-v2, 8 texts of 32 tokens."""
    words = torch.randint(0, 30522, (8, 32))
    layer = nn.TransformerEncoderLayer(384, 12, 1536, activation="gelu", batch_first=True)
    encoder = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
    return nn.Sequential(
        nn.Embedding(30522, 384), nn.LayerNorm(384), encoder
    ), lambda model: model(words).square().mean()


MODELS = {"digits CNN": digits, "EfficientNet-Lite0": efficientnet, "MiniLM": minilm}


def training(make: Callable[[], tuple[nn.Module, Loss]], folder: Path | None, along_path: bool = False) -> Work:
    """Twenty steps, observed if there is a folder."""
    torch.manual_seed(0)
    model, loss_of = make()
    named = list(model.named_parameters())
    decayed = [{"params": [p for _, p in named if p.ndim > 1], "name": "weights"}]
    optimizer = torch.optim.AdamW([*decayed, {"params": [p for _, p in named if p.ndim < 2], "name": "rest"}], lr=1e-4)
    observer = Observer(optimizer, folder, along_path=along_path) if folder is not None else None

    def turn() -> None:
        for _ in range(TURN):
            loss = loss_of(model)
            loss.backward()
            if observer is not None:
                observer.log(loss=loss)
            optimizer.step()
            optimizer.zero_grad()

    return turn


def steps(folder: Path) -> None:
    """The table of training steps."""
    rows = []
    for name, make in MODELS.items():
        contestants = {
            "plain": training(make, None),
            "observed": training(make, folder / f"{name} a"),
            "along the path": training(make, folder / f"{name} b", along_path=True),
        }
        timings = race(contestants, "plain", seconds=40.0)
        added = [f"{100 * (timings[key].ratio - 1):.1f} %" for key in ("observed", "along the path")]
        rows.append([name, milliseconds(timings["plain"].seconds / TURN), *added])
    table("A training step, and what observing adds", ["model", "plain", "observed", "with the path"], rows)


def million(folder: Path, groups: int) -> list[str]:
    """Write and read a million steps of so many groups."""
    names = [f"group {i}" for i in range(groups)]
    header = Header(groups=tuple(Group(name, "AdamW", 1, 1) for name in names))
    began, count = time.perf_counter(), 1_000_000
    with Writer(folder, header) as writer:
        for i in range(count):
            numbers = {name: {"grad_norm": 0.123456789, "clip_factor": 1.0} for name in names}
            values = {name: {"lr": 1e-3, "beta1": 0.9, "beta2": 0.98} for name in names}
            writer.write(Step(i, i / 10, values, numbers, {"loss": 0.5}))
    written = time.perf_counter()
    size = sum(path.stat().st_size for path in folder.glob("part-*"))
    run = read(folder)
    done = time.perf_counter()
    run.series("groups", names[0], "grad_norm")
    found = time.perf_counter() - done
    times = [f"{seconds:.1f} s" for seconds in (written - began, done - written)]
    return [str(groups), f"{size / 1e6:.0f} MB", *times, milliseconds(found)]


if __name__ == "__main__":
    threads_from_arguments(__doc__)
    scratch = Path(tempfile.mkdtemp())
    steps(scratch)
    rows = [million(scratch / f"million {groups}", groups) for groups in (1, 4)]
    table("A million records", ["groups", "size", "written", "read", "one series"], rows)
    shutil.rmtree(scratch)
