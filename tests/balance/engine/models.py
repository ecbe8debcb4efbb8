"""Small multi-task models of every kind, in float64: `losses(z)` by task, from the same batch each time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class MultiTask(nn.Module):
    """`forward()` gives the losses by task; `features` is what the heads read."""

    features: object = None

    def losses(self) -> dict[str, Tensor]:
        """The same numbers each time: whatever is random starts from the same seed."""
        torch.manual_seed(7)
        found: dict[str, Tensor] = self()
        return found


def batch(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


class Plain(MultiTask):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh())
        self.heads = nn.ModuleDict({name: nn.Linear(6, 2) for name in ("a", "b", "c")})
        self.register_buffer("x", batch(4, 5))

    def represent(self) -> Tensor:
        return self.trunk(self.x)

    def forward(self) -> dict[str, Tensor]:
        self.features = z = self.represent()
        return {name: (head(z) - i).square().mean() for i, (name, head) in enumerate(self.heads.items())}


class Checkpointed(Plain):
    def represent(self) -> Tensor:
        return checkpoint(self.trunk, self.x, use_reentrant=False)


class Frozen(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.trunk[2].requires_grad_(False)
        self.heads["b"].weight.requires_grad_(False)


class Convolutional(MultiTask):
    """BatchNorm, dropout and channels-last weights."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(4, 3, 3), nn.AvgPool2d(2)
        ).to(memory_format=torch.channels_last)
        self.dense = nn.Conv2d(3, 1, 1)
        self.label = nn.Linear(12, 3)
        self.register_buffer("x", batch(4, 2, 8, 8).to(memory_format=torch.channels_last))

    def forward(self) -> dict[str, Tensor]:
        self.features = z = self.trunk(self.x)
        target = torch.tensor([0, 1, 2, 1])
        return {"dense": self.dense(z).abs().mean(), "label": F.cross_entropy(self.label(z.flatten(1)), target)}


class Recurrent(MultiTask):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.GRU(3, 4, batch_first=True)
        self.last, self.every = nn.Linear(4, 1), nn.Linear(4, 2)
        self.register_buffer("x", batch(2, 5, 3))

    def forward(self) -> dict[str, Tensor]:
        self.features = z = self.trunk(self.x)[0]
        return {"last": self.last(z[:, -1]).square().mean(), "every": self.every(z).sin().mean()}


class PartlyShared(MultiTask):
    """A neck under two of three tasks, a task of its own beside, and two features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.neck = nn.Linear(5, 4), nn.Linear(4, 4)
        self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in ("a", "b", "c")})
        self.alone = nn.Linear(5, 1)
        self.register_buffer("x", batch(3, 5))

    def forward(self) -> dict[str, Tensor]:
        s = self.stem(self.x).tanh()
        n = self.neck(s).tanh()
        return {
            "a": self.heads["a"](n).square().mean(),
            "b": (self.heads["b"](n) - 1).square().mean(),
            "c": (self.heads["c"](s) + 1).square().mean(),
            "alone": self.alone(self.x).square().mean(),
        }


class TwoFeatures(MultiTask):
    """Two trunks, and heads that read both."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 3), nn.Linear(5, 2)
        self.a, self.b = nn.Linear(5, 1), nn.Linear(3, 1)
        self.register_buffer("x", batch(3, 5))

    def forward(self) -> dict[str, Tensor]:
        left, right = self.left(self.x).tanh(), self.right(self.x).sigmoid()
        self.features = {"left": left, "right": right}
        return {"a": self.a(torch.cat([left, right], 1)).square().mean(), "b": (self.b(left) - 1).square().mean()}


class Tied(MultiTask):
    """One matrix as embedding and as output layer of one task; dense."""

    sparse = False

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4, sparse=self.sparse)
        self.mix, self.score = nn.Linear(4, 4), nn.Linear(4, 1)
        self.register_buffer("tokens", torch.tensor([[1, 2, 2, 5], [7, 1, 0, 3]]))

    def forward(self) -> dict[str, Tensor]:
        z = self.mix(self.embed(self.tokens)).tanh()
        logits = F.linear(z, self.embed.weight)
        return {
            "word": F.cross_entropy(logits.flatten(0, 1), self.tokens.flatten()),
            "score": self.score(z).square().mean(),
        }


class TiedSparse(Tied):
    """Dense gradients from one task, sparse ones from the other."""

    sparse = True


class SparseEmbedding(MultiTask):
    """Each task reads other rows of one table, one row twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 3, sparse=True)
        self.bag = nn.EmbeddingBag(50, 3, sparse=True, mode="sum")
        self.a, self.b = nn.Linear(3, 1), nn.Linear(6, 1)

    def forward(self) -> dict[str, Tensor]:
        one, two = torch.tensor([4, 9, 9, 30]), torch.tensor([4, 41])
        bag = self.bag(torch.tensor([[1, 2], [2, 3]]))
        read = torch.cat([self.embed(two), bag], 1)
        return {"a": self.a(self.embed(one)).square().mean(), "b": (self.b(read) - 1).square().mean()}


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, factor: float, x: Tensor, name: str) -> Tensor:
        ctx.factor = factor  # type: ignore[attr-defined]
        return x * factor

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[None, Tensor, None]:
        return None, grad * ctx.factor, None  # type: ignore[attr-defined]


class Tangled(MultiTask):
    """A loss inside another, a Function with arguments that are no tensors, a leaf that is no parameter, a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Linear(5, 4), nn.Linear(9, 1)
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.offset = torch.full((4,), 0.1, dtype=torch.float64, requires_grad=True)
        self.register_buffer("x", batch(3, 5))

    def forward(self) -> dict[str, Tensor]:
        z = _Scaled.apply(3.0, self.trunk(self.x).tanh() + self.offset, "z")
        inner = z.square().mean() * self.scale
        outer = self.head(torch.cat([z, self.x], 1)).sin().mean() + inner * 2
        return {"inner": inner, "outer": outer, "scale": self.scale * 1.0 + _Scaled.apply(2.0, z, "w").sum() / 50}


KINDS: dict[str, Callable[[], MultiTask]] = {
    cls.__name__: cls
    for cls in (
        Plain, Checkpointed, Frozen, Convolutional, Recurrent, PartlyShared, TwoFeatures, Tied, TiedSparse,
        SparseEmbedding, Tangled,
    )
}  # fmt: skip


def built(kind: str) -> MultiTask:
    """A model with the same weights each time."""
    torch.manual_seed(11)
    return KINDS[kind]().double()
