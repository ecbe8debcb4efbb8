"""Fixed models that the recipes and the errors speak of, and short ways to resolve a plan on one."""

from typing import Any

import torch
from torch import nn

from groupwise import Plan, Rule
from groupwise.optim import resolve
from groupwise.plan import Group, Resolution, ScalarSetting, TupleSetting


class Net(nn.Module):
    """A word table, a backbone of two numbered blocks, a norm and a head."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4, sparse=sparse)
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)


class BertLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(), "LayerNorm": nn.LayerNorm(4)})
        self.output = nn.ModuleDict({"dense": nn.Linear(4, 4), "LayerNorm": nn.LayerNorm(4)})


class Bert(nn.Module):
    """The names of a Hugging Face encoder: `bert.embeddings…`, `bert.encoder.layer.3…`, `bert.pooler`, `classifier`."""

    def __init__(self, layers: int = 4) -> None:
        super().__init__()
        embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(7, 4),
                "position_embeddings": nn.Embedding(3, 4),
                "LayerNorm": nn.LayerNorm(4),
            }
        )
        encoder = nn.ModuleDict({"layer": nn.ModuleList(BertLayer() for _ in range(layers))})
        pooler = nn.ModuleDict({"dense": nn.Linear(4, 4)})
        self.bert = nn.ModuleDict({"embeddings": embeddings, "encoder": encoder, "pooler": pooler})
        self.classifier = nn.Linear(4, 2)


class LoraLinear(nn.Module):
    """A PEFT layer: the frozen base, and A and B by adapter name."""

    def __init__(self) -> None:
        super().__init__()
        self.base_layer = nn.Linear(4, 4).requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(4, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 4, bias=False)})


def base(**declared: Any) -> Rule:
    """`Rule("*", optimizer="AdamW", lr=1e-3)` with more, or other, declarations."""
    return Rule("*", **({"optimizer": "AdamW", "lr": 1e-3} | declared))


def resolved(model: Any, *rules: Rule, **fields: Any) -> Resolution:
    return resolve(model, Plan(list(rules), **fields))


def group_of(resolution: Resolution, name: str) -> Group:
    return next(group for group in resolution.groups if any(name in info.names for info in group.parameters))


def value(resolution: Resolution, name: str, hyperparameter: str = "lr", step: int = 0) -> Any:
    """What a hyperparameter of the parameter `name` is at a step, the class default where nobody declares it."""
    group = group_of(resolution, name)
    setting = group.settings.get(hyperparameter)
    return resolution.algorithms[str(group.algorithm)].defaults[hyperparameter] if setting is None else setting.at(step)


def values(resolution: Resolution, hyperparameter: str = "lr") -> dict[str, Any]:
    """By parameter."""
    return {info.name: value(resolution, info.name, hyperparameter) for info in resolution.parameters}


def text(resolution: Resolution, name: str, hyperparameter: str = "lr") -> str:
    """How the table prints it."""
    setting = group_of(resolution, name).settings[hyperparameter]
    return str(setting) if isinstance(setting, ScalarSetting | TupleSetting) else ""


def optimizer_of(resolution: Resolution, name: str) -> str | None:
    return group_of(resolution, name).algorithm


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))
