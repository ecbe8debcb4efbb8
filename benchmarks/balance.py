"""One balanced step beside the plain sum, its floor, and TorchJD:  python -m benchmarks --only balance

A trunk, K linear heads, one batch; a step is forward, backward into `.grad`, and nothing else (every contestant's
optimizer would be the same). Contestants take turns in one process.

The floors, from their parts measured alone, with F the forward, B_h the backward of all heads, B_t that of the trunk:

    losses        F + B_h + B_t         the plain sum's step
    features      F + B_h + B_t         and the Gramian of K gradients at the representation, which is measured
    sequential    F + B_h + K B_t       measured as K calls of torch.autograd.grad whose results are dropped
    gramian       F + B_h + (K + 1) B_t, batched

TorchJD 0.18 computes the same Jacobian (`autojac.backward`, `autojac.mtl_backward`: all rows at once or one by one) or
the same Gramian (`autogram`), each then with the same aggregation. Its best mode is the fastest of all that apply.
Memory is the most bytes alive at one time over the first two steps, `.grad` and rows that are kept included, counted
over every tensor that an operation returns (`comparing.cost.peak`); parameters and batch are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torchjd import autogram
from torchjd.aggregation import UPGrad as TheirUPGrad
from torchjd.aggregation import UPGradWeighting
from torchjd.autojac import backward, jac_to_grad, mtl_backward

from benchmarks.measure import Scale, Table, Timing, Work, milliseconds, race, repeated
from groupwise.balance import Balancer, Equal, Uncertainty, UPGrad
from groupwise.balance.comparing.cost import peak

TASKS = (2, 8, 32)
BATCH, WIDTH = 128, 512  # a quarter of the batch for pictures


class Net(nn.Module):
    """A trunk and K heads that each end in a loss."""

    def __init__(self, trunk: nn.Module, width: int, tasks: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(tasks))

    def losses(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The representation, and the loss of every task."""
        z = self.trunk(x)
        return z, [head(z).square().mean() for head in self.heads]


def dense() -> tuple[nn.Module, int, Tensor]:
    """A trunk of matrices: 1.05 million parameters."""
    layers = [layer for _ in range(4) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    return nn.Sequential(*layers), WIDTH, torch.randn(BATCH, WIDTH)


def convolutions() -> tuple[nn.Module, int, Tensor]:
    """The trunk of the two digits: 0.35 million parameters."""
    body = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()]
    body += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 4 * 8, 144), nn.ReLU()]
    return nn.Sequential(*body), 144, torch.randn(BATCH, 1, 8, 16)


def pictures() -> tuple[nn.Module, int, Tensor]:
    """A small ResNet's worth of convolutions: 0.15 million parameters, 32 x 32 pictures."""
    body: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        body += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(64 * 16, 32), nn.ReLU()), 32, torch.randn(BATCH // 4, 3, 32, 32)


TRUNKS: Mapping[str, Callable[[], tuple[nn.Module, int, Tensor]]] = {
    "dense": dense,
    "convolutions": convolutions,
    "pictures": pictures,
}


def clear(net: Net) -> None:
    """As `zero_grad` leaves it."""
    for p in net.parameters():
        p.grad = None


def plain(net: Net, x: Tensor) -> None:
    """The sum."""
    clear(net)
    torch.stack(net.losses(x)[1]).sum().backward()


def floor(net: Net, x: Tensor) -> None:
    """F + B_h + K B_t: K backwards whose gradients nobody keeps."""
    losses = net.losses(x)[1]
    for head, loss in zip(net.heads, losses, strict=True):
        torch.autograd.grad(loss, [*net.trunk.parameters(), *head.parameters()], retain_graph=True)


def features_floor(net: Net, x: Tensor) -> None:
    """F + B_h, the product of K gradients at the representation, and B_t from a combination of them."""
    clear(net)
    z, losses = net.losses(x)
    rows = torch.empty(len(losses), z.numel())
    for row, head, loss in zip(rows, net.heads, losses, strict=True):
        gradient, head.weight.grad, head.bias.grad = torch.autograd.grad(loss, [z, *head.parameters()])
        row.copy_(gradient.flatten())
    combined = (rows @ rows.T).sum(1) @ rows
    torch.autograd.backward([z], [combined.view_as(z)], inputs=[*net.trunk.parameters()])


def ours(balancer: Balancer, named: bool, net: Net, x: Tensor) -> None:
    """`balancer.backward`."""
    clear(net)
    z, losses = net.losses(x)
    tasks = {str(i): loss for i, loss in enumerate(losses)}
    balancer.backward(tasks, features=z) if named else balancer.backward(tasks)


def their_backward(chunk: int | None, net: Net, x: Tensor) -> None:
    """`autojac.backward` on the trunk, which leaves the heads to a sum."""
    clear(net)
    losses = net.losses(x)[1]
    shared = [*net.trunk.parameters()]
    backward(losses, inputs=shared, retain_graph=True, parallel_chunk_size=chunk)
    torch.autograd.backward(losses, inputs=[*net.heads.parameters()])
    jac_to_grad(shared, TheirUPGrad())


def their_mtl(chunk: int | None, net: Net, x: Tensor) -> None:
    """`autojac.mtl_backward`."""
    clear(net)
    z, losses = net.losses(x)
    mtl_backward(losses, z, parallel_chunk_size=chunk)
    jac_to_grad([*net.trunk.parameters()], TheirUPGrad())


class TheirGramian:
    """`autogram`: the Gramian of the trunk, then a weighted backward; heads see the weight."""

    def __init__(self, net: Net) -> None:
        self.engine = autogram.Engine(net.trunk, batch_dim=None)
        self.weighting = UPGradWeighting()

    def __call__(self, net: Net, x: Tensor) -> None:
        clear(net)
        losses = torch.stack(net.losses(x)[1])
        losses.backward(self.weighting(self.engine.compute_gramian(losses)))


Step = Callable[[Net, Tensor], None]


def steps(net: Net) -> dict[str, Step]:
    """Every contestant by name; TorchJD's begin with its name."""
    return {
        "plain sum": plain,
        "floor of sequential": floor,
        "floor of features": features_floor,
        "losses: Equal": partial(ours, Balancer(Equal()), False),
        "losses: Uncertainty": partial(ours, Balancer(Uncertainty()), False),
        "features": partial(ours, Balancer(UPGrad()), True),
        "sequential": partial(ours, Balancer(UPGrad(), route="sequential"), False),
        "gramian": partial(ours, Balancer(UPGrad(), route="gramian"), False),
        "auto": partial(ours, Balancer(UPGrad()), False),
        "TorchJD backward, at once": partial(their_backward, None),
        "TorchJD backward, one by one": partial(their_backward, 1),
        "TorchJD mtl_backward, at once": partial(their_mtl, None),
        "TorchJD mtl_backward, one by one": partial(their_mtl, 1),
        "TorchJD autogram": TheirGramian(net),
    }


FAST = ("plain sum", "floor of features", "losses: Equal", "losses: Uncertainty", "features")
ROWS = ("floor of sequential", "sequential", "gramian", "auto")


def contest(trunk: str, tasks: int, scale: Scale) -> list[str]:
    """Race every contestant on one model: what is said of them.

    Those that cost about a plain sum take turns among themselves, and those that cost a backward for each task with the
    two of TorchJD's modes that were the fastest in a call of their own.
    """
    works = _works(trunk, tasks)
    fast = race({name: works[name] for name in FAST}, "plain sum", scale.seconds(4.0))
    best = sorted((name for name in works if name.startswith("TorchJD")), key=lambda name: _second(works[name]))[:2]
    rows = race({name: works[name] for name in (*ROWS, *best)}, ROWS[0], scale.seconds(4.0), warmup=1)
    theirs = min(rows[name].seconds for name in best)
    return [
        milliseconds(fast["plain sum"].seconds),
        *(_ratio(fast[who]) for who in ("losses: Equal", "losses: Uncertainty", "features", "floor of features")),
        f"{fast['features'].ratio / fast['floor of features'].ratio:.2f}",
        _ratio(rows["sequential"]),
        f"{rows['gramian'].ratio / rows['sequential'].ratio:.2f}",
        f"{rows['auto'].seconds / theirs:.2f}",
    ]


def _second(work: Work) -> float:
    """The seconds of a second call."""
    work()
    began = time.thread_time()
    work()
    return time.thread_time() - began


def _ratio(timing: Timing) -> str:
    return f"{timing.ratio:.2f} ± {timing.spread:.2f}"


TIMES = (
    "trunk, tasks",
    "plain sum",
    "Equal / sum",
    "Uncertainty / sum",
    "features / sum",
    "floor of features / sum",
    "features / its floor",
    "sequential / its floor",
    "gramian / sequential",
    "auto / TorchJD's best",
)

WEIGHED = (("dense", 2), ("dense", 8), ("convolutions", 2), ("convolutions", 8), ("pictures", 2))


def weighed(trunk: str, tasks: int) -> list[str]:
    """The memory of every contestant on one model, in MiB: ours, and the least of TorchJD's."""
    peaks = {name: peak(repeated(work, 2)) / 2**20 for name, work in _works(trunk, tasks).items()}
    jacobian = min(size for name, size in peaks.items() if name.startswith("TorchJD") and "autogram" not in name)
    found = [peaks[who] for who in ("plain sum", "losses: Equal", "features", "sequential", "gramian")]
    return [f"{size:.3g}" for size in (*found, jacobian, peaks["TorchJD autogram"])]


MEMORY = (
    "trunk, tasks",
    "plain sum",
    "Equal",
    "features",
    "sequential",
    "gramian",
    "TorchJD, least of the Jacobian's modes",
    "TorchJD autogram",
)


def _works(trunk: str, tasks: int) -> dict[str, Work]:
    works: dict[str, Work] = {}
    for name in steps(_net(trunk, tasks)[0]):
        net, x = _net(trunk, tasks)
        works[name] = partial(steps(net)[name], net, x)
    return works


def _net(trunk: str, tasks: int) -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    body, width, x = TRUNKS[trunk]()
    return Net(body, width, tasks), x


def tables(scale: Scale) -> Iterator[Table]:
    """Times of every trunk under every number of tasks, but the largest of the slowest; memory of the smaller ones."""
    jobs = [(trunk, tasks) for trunk in TRUNKS for tasks in TASKS if (trunk, tasks) != ("pictures", 32)]
    jobs = [("convolutions", 2)] if scale.quick else jobs
    rows = []
    for trunk, tasks in jobs:
        scale.say(f"time: {trunk}, {tasks} tasks")
        rows.append([f"{trunk}, {tasks}", *contest(trunk, tasks, scale)])
    yield Table("A balanced step", TIMES, rows)
    rows = []
    for trunk, tasks in jobs:
        if (trunk, tasks) in WEIGHED:
            scale.say(f"memory: {trunk}, {tasks} tasks")
            rows.append([f"{trunk}, {tasks}", *weighed(trunk, tasks)])
    yield Table("Most bytes alive over two steps, MiB", MEMORY, rows)
