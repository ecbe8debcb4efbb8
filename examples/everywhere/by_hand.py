"""What the plan says, in torch alone; no parameter group of groupwise.    python -m examples.everywhere.by_hand"""

import math

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from examples.everywhere.job import BATCH, Digits, Net, run


def train(epochs: int) -> dict[str, Tensor]:
    """The usual loop, with two optimizers and everything that changes over time."""
    loader = DataLoader(Digits(), BATCH)
    model = Net()
    total = epochs * len(loader)
    warmup, frozen = round(0.1 * total), round(0.25 * total)

    def rate(step: int) -> float:
        if step < warmup:
            return 5e-3 * (step + 1) / warmup
        return 5e-3 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

    layers = [(model.stem, 1.0), (model.blocks[0], 0.7), (model.blocks[1], 1.0), (model.norm, 1.0)]
    groups = [
        {"params": [parameter], "factor": factor, "decay": 0.1 if parameter.ndim == 2 else 0.0}
        for layer, factor in layers
        for parameter in layer.parameters()
    ]
    adamw = torch.optim.AdamW(groups, eps=1e-8)
    sgd = torch.optim.SGD(model.head.parameters(), lr=0.05, momentum=0.9)
    step = 0
    for _ in range(epochs):
        for batch in loader:
            model.stem.requires_grad_(step >= frozen)
            for group in adamw.param_groups:
                group["lr"] = group["factor"] * rate(step)
                group["weight_decay"] = group["decay"] * step / total
            loss = model(**batch)["loss"]
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adamw.step()
            sgd.step()
            adamw.zero_grad()
            sgd.zero_grad()
            step += 1
    return model.state_dict()


if __name__ == "__main__":
    run(train)
