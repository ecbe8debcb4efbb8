"""Networks as people write them, without a word for their roles in any container of the library."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

D = 16
IDS = torch.ones(2, 4, dtype=torch.long)


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, each with a norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """Stages that are attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.down1, self.down2 = double(3, 4), double(4, 8), double(8, 8)
        self.up1, self.up2, self.exit = double(16, 4), double(8, 4), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A map of two classes."""
        fine = self.entry(x)
        middle = self.down1(F.max_pool2d(fine, 2))
        x = F.interpolate(self.down2(F.max_pool2d(middle, 2)), scale_factor=2.0)
        x = F.interpolate(self.up1(torch.cat([x, middle], 1)), scale_factor=2.0)
        out: torch.Tensor = self.exit(self.up2(torch.cat([x, fine], 1)))
        return out


class ListedUNet(nn.Module):
    """Stages in lists, with a middle, and upsampling beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.downs, self.middle = double(3, 4), nn.ModuleList([double(4, 8), double(8, 8)]), double(8, 8)
        self.lifts = nn.ModuleList([nn.ConvTranspose2d(8, 4, 1), nn.ConvTranspose2d(4, 4, 2, 2)])
        self.ups, self.exit = nn.ModuleList([double(12, 4), double(12, 4)]), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A map of two classes."""
        kept, x = [], self.entry(x)
        for down in self.downs:
            x = down(F.max_pool2d(x, 2)) if kept else down(x)
            kept.append(x)
        x = self.middle(x)
        for lift, up in zip(self.lifts, self.ups, strict=True):
            x = up(torch.cat([lift(x), kept.pop()], 1))
        out: torch.Tensor = self.exit(x)
        return out


class LanguageModel(nn.Module):
    """A recurrent one."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.body, self.out = nn.Embedding(9, D), nn.LSTM(D, D, 2, batch_first=True), nn.Linear(D, 9)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits."""
        out: torch.Tensor = self.out(self.body(self.words(ids))[0])
        return out


class Translator(nn.Module):
    """Two recurrent networks, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(9, D), nn.Embedding(9, D)
        self.encoder, self.decoder = nn.GRU(D, D, batch_first=True, bidirectional=True), nn.GRU(3 * D, D)
        self.score, self.out = nn.Linear(D, 2 * D, bias=False), nn.Linear(3 * D, 9)

    def forward(self, given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Logits."""
        memory, _ = self.encoder(self.source(given))
        start = memory.mean(1, keepdim=True).expand(-1, wanted.shape[1], -1)
        state, _ = self.decoder(torch.cat([self.target(wanted), start], -1).transpose(0, 1))
        state = state.transpose(0, 1)
        seen = (self.score(state) @ memory.mT).softmax(-1) @ memory
        out: torch.Tensor = self.out(torch.cat([state, seen], -1))
        return out


class Field(nn.Module):
    """A radiance field: layers in a list, a skip, two answers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, D), nn.Linear(D + 6, D), nn.Linear(D, D)])
        self.density, self.features, self.view, self.colour = (
            nn.Linear(D, 1), nn.Linear(D, D), nn.Linear(D + 3, 8), nn.Linear(8, 3),
        )  # fmt: skip

    def forward(self, place: torch.Tensor, view: torch.Tensor) -> Any:
        """Density and colour."""
        x = place
        for i, layer in enumerate(self.layers):
            x = F.relu(layer(torch.cat([x, place], -1) if i == 1 else x))
        return self.density(x), self.colour(F.relu(self.view(torch.cat([self.features(x), view], -1))))


class Recommender(nn.Module):
    """Tables, a wide part, an interaction, a network on top."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(9, D, mode="sum") for _ in range(3))
        self.bottom = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, D), nn.ReLU())
        self.top, self.wide = nn.Sequential(nn.Linear(D + 6, 8), nn.ReLU(), nn.Linear(8, 1)), nn.Linear(5, 1)

    def forward(self, numbers: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """A score."""
        x = self.bottom(numbers)
        parts = torch.stack([x, *(table(ids[:, i, None]) for i, table in enumerate(self.tables))], 1)
        i, j = torch.tril_indices(4, 4, -1)
        out: torch.Tensor = self.top(torch.cat([x, (parts @ parts.mT)[:, i, j]], 1)) + self.wide(numbers)
        return out


class Mixture(nn.Module):
    """Experts that every task mixes in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleList(
            nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, D), nn.ReLU()) for _ in range(3)
        )
        self.second = nn.ModuleList(nn.Linear(D, 3) for _ in range(2))
        self.third = nn.ModuleList(nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, 1)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> Any:
        """One answer for each task."""
        given = torch.stack([part(x) for part in self.first], 1)
        scores = [part(x).softmax(-1)[..., None] for part in self.second]
        return [last((share * given).sum(1)) for share, last in zip(scores, self.third, strict=True)]


class Choosing(nn.Module):
    """Blocks in which a token goes to two of three networks, with a gated one for all."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.blocks, self.out = nn.Linear(5, D), nn.ModuleList(), nn.Linear(D, 2)
        for _ in range(2):
            block = nn.Module()
            block.a = nn.Linear(D, 3, bias=False)
            block.b = nn.ModuleList(nn.Sequential(nn.Linear(D, 8), nn.GELU(), nn.Linear(8, D)) for _ in range(3))
            block.c, block.d, block.e = nn.Linear(D, D), nn.Linear(D, 1), nn.LayerNorm(D)
            self.blocks.append(block)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.start(x)
        for block in self.blocks:
            taken = block.e(x)
            best, chosen = block.a(taken).softmax(-1).topk(2)
            mixed = block.c(taken) * torch.sigmoid(block.d(taken))
            for i, part in enumerate(block.b):
                rows, place = (chosen == i).nonzero(as_tuple=True)
                mixed = mixed.index_add(0, rows, part(taken[rows]) * best[rows, place, None])
            x = x + mixed
        out: torch.Tensor = self.out(x)
        return out


class Diffusion(nn.Module):
    """Blocks whose norms are set by a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.time, self.place = nn.Linear(4, D), nn.Linear(3, D), nn.Parameter(torch.rand(1, 6, D))
        self.blocks = nn.ModuleList()
        for _ in range(2):
            block = nn.Module()
            block.norm, block.mix = nn.LayerNorm(D, elementwise_affine=False), nn.MultiheadAttention(D, 2)
            block.set, block.up, block.down = nn.Linear(D, 3 * D), nn.Linear(D, 2 * D), nn.Linear(2 * D, D)
            self.blocks.append(block)
        self.norm, self.set, self.out = nn.LayerNorm(D, elementwise_affine=False), nn.Linear(D, 2 * D), nn.Linear(D, 4)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Noise."""
        condition, x = F.silu(self.time(time))[:, None], self.entry(x) + self.place
        for block in self.blocks:
            size, shift, gate = block.set(condition).chunk(3, -1)
            taken = block.norm(x) * (1 + size) + shift
            x = x + gate * block.mix(taken, taken, taken)[0]
            x = x + block.down(F.gelu(block.up(x)))
        size, shift = self.set(condition).chunk(2, -1)
        out: torch.Tensor = self.out(self.norm(x) * (1 + size) + shift)
        return out


class Graph(nn.Module):
    """Rounds of messages, with a norm by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.rounds, self.read = nn.Linear(5, D), nn.ModuleList(), nn.Linear(D, 2)
        for _ in range(2):
            part = nn.Module()
            part.message, part.update = nn.Linear(2 * D, D), nn.GRUCell(D, D)
            part.gain, part.shift = nn.Parameter(torch.ones(D)), nn.Parameter(torch.zeros(D))
            self.rounds.append(part)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.lift(x)
        for part in self.rounds:
            sent = F.relu(part.message(torch.cat([x[edges[0]], x[edges[1]]], -1)))
            x = part.update(torch.zeros_like(x).index_add(0, edges[1], sent), x)
            x = (x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.var(-1, keepdim=True) + 1e-5) * part.gain + part.shift
        out: torch.Tensor = self.read(x.mean(0))
        return out


class StateSpace(nn.Module):
    """A convolution whose kernel is computed from parameters alone."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.layers, self.out = nn.Linear(3, D), nn.ModuleList(), nn.Linear(D, 2)
        for _ in range(2):
            part = nn.Module()
            part.log_step, part.skip = nn.Parameter(torch.rand(D)), nn.Parameter(torch.ones(D))
            part.log_decay, part.turn = nn.Parameter(torch.rand(D, 4)), nn.Parameter(torch.rand(D, 4))
            part.read, part.mix, part.norm = nn.Parameter(torch.rand(D, 4)), nn.Linear(D, D), nn.LayerNorm(D)
            self.layers.append(part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x, length = self.lift(x), x.shape[1]
        for part in self.layers:
            taken = part.norm(x).mT
            poles = (-part.log_decay.exp() + 1j * part.turn) * part.log_step.exp()[:, None]
            steps = (poles[..., None] * torch.arange(length)).exp()
            kernel = torch.einsum("dn,dnl->dl", part.read.to(steps.dtype), steps).real
            given = torch.fft.rfft(taken, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
            given = torch.fft.irfft(given, n=2 * length)[..., :length] + taken * part.skip[:, None]
            x = x + part.mix(F.gelu(given).mT)
        out: torch.Tensor = self.out(x.mean(1))
        return out


class Codebook(nn.Module):
    """An autoencoder that sends what is nearest in a table."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1))
        self.table = nn.Parameter(torch.rand(12, 8))
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 8, 3, 1, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The image again."""
        given = self.down(x).permute(0, 2, 3, 1)
        flat = given.reshape(-1, 8)
        far = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ self.table.t() + self.table.pow(2).sum(1)
        sent = given + (self.table[far.argmin(1)].view_as(given) - given).detach()
        out: torch.Tensor = self.up(sent.permute(0, 3, 1, 2))
        return out


class Agent(nn.Module):
    """A policy with a spread of its own, and a value."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, D), nn.Tanh(), nn.Linear(D, D), nn.Tanh())
        self.policy, self.value, self.spread = nn.Linear(D, 3), nn.Linear(D, 1), nn.Parameter(torch.zeros(3))

    def forward(self, seen: torch.Tensor) -> Any:
        """An action, and what it is worth."""
        x = self.body(seen)
        return self.policy(x) + self.spread.exp() * torch.randn(3), self.value(x)


class Operator(nn.Module):
    """Spectral weights in one list, the layers beside them in another."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.out = nn.Linear(2, D), nn.Linear(D, 1)
        self.modes = nn.ParameterList(nn.Parameter(torch.rand(D, D, 3, dtype=torch.cfloat)) for _ in range(2))
        self.local = nn.ModuleList(nn.Conv1d(D, D, 1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A function on the same points."""
        x = self.lift(x).mT
        for modes, local in zip(self.modes, self.local, strict=True):
            waves = torch.fft.rfft(x)
            given = torch.zeros_like(waves)
            given[..., :3] = torch.einsum("bix,iox->box", waves[..., :3], modes)
            x = F.gelu(torch.fft.irfft(given, n=x.shape[-1]) + local(x))
        out: torch.Tensor = self.out(x.mT)
        return out
