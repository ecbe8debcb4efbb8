"""Models in the shapes that people give them, small enough to build in every test."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class LlamaRMSNorm(nn.Module):
    """As in transformers: a norm that inherits from nothing but Module."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class T5LayerNorm(LlamaRMSNorm):
    """As in transformers."""


class FrozenBatchNorm2d(LlamaRMSNorm):
    """A norm by its name alone."""


class NormedLinear(nn.Linear):
    """A linear layer, not a norm."""


class WeightNormConv(nn.Module):
    """A convolution, not a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4, 3, 3))


class Conv1D(nn.Module):
    """GPT-2's linear layer: weight is (in, out)."""

    def __init__(self, out: int, into: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(into, out))
        self.bias = nn.Parameter(torch.zeros(out))


class Residual(nn.Module):
    """A ResNet's basic block."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        if into != out:
            self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, bias=False), nn.BatchNorm2d(out))


class ResNet(nn.Module):
    """conv1, bn1, four numbered stages, fc."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 7)
        self.bn1 = nn.BatchNorm2d(4)
        for stage, (into, out) in enumerate([(4, 4), (4, 8), (8, 16), (16, 32)], start=1):
            setattr(self, f"layer{stage}", nn.Sequential(Residual(into, out), Residual(out, out)))
        self.fc = nn.Linear(32, 10)


class Block(nn.Module):
    """A transformer block with a layer scale of its own."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)


class ViT(nn.Module):
    """Tokens and tables held by the root, a stem, blocks, a final norm, a head."""

    def __init__(self, blocks: int = 3, width: int = 8) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, width))
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, width, 4)))
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)


def named(**children: Any) -> nn.Module:
    """A module with the given children and parameters, in that order."""
    module = nn.Module()
    for name, child in children.items():
        setattr(module, name, child)
    return module


def bert(classes: int = 2, width: int = 8) -> nn.Module:
    """The tree of BertForSequenceClassification: `bert.encoder.layer.3.attention.self.query`."""

    def layer() -> nn.Module:
        inner = named(query=nn.Linear(width, width), key=nn.Linear(width, width), value=nn.Linear(width, width))
        attention = nn.Module()
        attention.add_module("self", inner)
        attention.add_module("output", named(dense=nn.Linear(width, width), LayerNorm=nn.LayerNorm(width)))
        output = named(dense=nn.Linear(4 * width, width), LayerNorm=nn.LayerNorm(width))
        return named(attention=attention, intermediate=named(dense=nn.Linear(width, 4 * width)), output=output)

    embeddings = named(
        word_embeddings=nn.Embedding(30, width),
        position_embeddings=nn.Embedding(16, width),
        LayerNorm=nn.LayerNorm(width),
    )
    encoder = named(layer=nn.ModuleList(layer() for _ in range(4)))
    trunk = named(embeddings=embeddings, encoder=encoder, pooler=named(dense=nn.Linear(width, width)))
    return named(bert=trunk, classifier=nn.Linear(width, classes))


def unet() -> nn.Module:
    """Numbered stages on the way down and up, a bottleneck between them."""

    def stage(into: int, out: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(into, out, 3), nn.GroupNorm(2, out), nn.SiLU(), nn.Conv2d(out, out, 3))

    return named(
        stem=nn.Conv2d(3, 4, 3),
        down=nn.ModuleList([stage(4, 8), stage(8, 16)]),
        middle=stage_named(16),
        up=nn.ModuleList([stage(16, 8), stage(8, 4)]),
        out=nn.Conv2d(4, 1, 1),
    )


def stage_named(width: int) -> nn.Module:
    """A stage whose parts have names, so that nothing in it is a level."""
    return named(conv=nn.Conv2d(width, width, 3), norm=nn.GroupNorm(2, width))


def language_model(width: int = 8) -> nn.Module:
    """A decoder tied to the word table."""
    model = named(
        wte=nn.Embedding(30, width),
        h=nn.ModuleList(Block(width) for _ in range(2)),
        ln_f=nn.LayerNorm(width),
        lm_head=nn.Linear(width, 30, bias=False),
    )
    model.lm_head.weight = model.wte.weight
    return model


def lora(width: int = 8, rank: int = 2) -> nn.Module:
    """PEFT's names: base_layer, lora_A.default.weight."""

    def adapted() -> nn.Module:
        return named(
            base_layer=nn.Linear(width, width),
            lora_A=nn.ModuleDict({"default": nn.Linear(width, rank, bias=False)}),
            lora_B=nn.ModuleDict({"default": nn.Linear(rank, width, bias=False)}),
            lora_embedding_A=nn.ParameterDict({"default": torch.zeros(rank, width)}),
        )

    blocks = nn.ModuleList(named(q_proj=adapted(), norm=LlamaRMSNorm(width)) for _ in range(2))
    return named(layers=blocks, norm=LlamaRMSNorm(width), score=nn.Linear(width, 2, bias=False))


EVERY: dict[str, Callable[[], nn.Module]] = {
    "resnet": ResNet,
    "vit": ViT,
    "bert": bert,
    "unet": unet,
    "tied": language_model,
    "lora": lora,
    "transformer": lambda: nn.Transformer(8, 2, 2, 2, 16, batch_first=True),
    "recurrent": lambda: named(rnn=nn.LSTM(4, 8, 2), gru=nn.GRU(8, 8), out=nn.Linear(8, 2)),
    "sequential": lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4)),
    "one layer": lambda: nn.Linear(2, 3),
}
