"""The plan under DistributedDataParallel.    torchrun --standalone --nproc-per-node 2 -m examples.everywhere.ddp"""

import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from examples.everywhere.job import BATCH, PLAN, Digits, Net, run
from groupwise import GroupedOptimizer, PlanScheduler


def train(epochs: int) -> dict[str, Tensor] | None:
    """Each process has its part of every batch; all hold the same weights."""
    dist.init_process_group("gloo")
    sampler = DistributedSampler(Digits(), shuffle=False)
    loader = DataLoader(Digits(), BATCH // dist.get_world_size(), sampler=sampler)
    net = Net()
    optimizer = GroupedOptimizer(net, PLAN)  # before the model is wrapped
    model = DistributedDataParallel(net)
    scheduler = PlanScheduler(optimizer, total_steps=epochs * len(loader))
    for _ in range(epochs):
        for batch in loader:
            loss = model(**batch)["loss"]
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    first = dist.get_rank() == 0
    dist.destroy_process_group()
    return net.state_dict() if first else None


if __name__ == "__main__":
    run(train)
