"""The plan under Ray Train, two workers.    python -m examples.everywhere.ray_train"""

import tempfile
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from examples.everywhere.job import BATCH, PLAN, Digits, Net, run
from groupwise import GroupedOptimizer, PlanScheduler


def work(given: dict[str, Any]) -> None:
    """What each worker does."""
    size = BATCH // ray.train.get_context().get_world_size()
    loader = ray.train.torch.prepare_data_loader(DataLoader(Digits(), size))
    net = Net()
    optimizer = GroupedOptimizer(net, PLAN)  # before the model is wrapped
    model = ray.train.torch.prepare_model(net)
    scheduler = PlanScheduler(optimizer, total_steps=given["epochs"] * len(loader))
    for _ in range(given["epochs"]):
        for batch in loader:
            loss = model(**batch)["loss"]
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    if ray.train.get_context().get_world_rank() == 0:
        torch.save(net.state_dict(), given["weights"])


def train(epochs: int) -> dict[str, Tensor]:
    """Two workers on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"epochs": epochs, "weights": str(Path(folder) / "weights.pt")}
        workers = ray.train.ScalingConfig(num_workers=2)
        storage = ray.train.RunConfig(storage_path=folder)
        ray.train.torch.TorchTrainer(work, train_loop_config=given, scaling_config=workers, run_config=storage).fit()
        return torch.load(given["weights"])


if __name__ == "__main__":
    run(train)
