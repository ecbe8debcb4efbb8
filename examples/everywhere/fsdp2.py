"""The plan under FSDP2 (fully_shard).    torchrun --standalone --nproc-per-node 2 -m examples.everywhere.fsdp2"""

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from examples.everywhere.job import BATCH, PLAN, Digits, Net, run
from groupwise import GroupedOptimizer, PlanScheduler


def train(epochs: int) -> dict[str, Tensor] | None:
    """Each process has its part of every batch and of every parameter."""
    dist.init_process_group("gloo")
    sampler = DistributedSampler(Digits(), shuffle=False)
    loader = DataLoader(Digits(), BATCH // dist.get_world_size(), sampler=sampler)
    model = Net()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for part in (*model.blocks, model):
        fully_shard(part, mesh=mesh)
    optimizer = GroupedOptimizer(model, PLAN)  # after the parameters are sharded
    scheduler = PlanScheduler(optimizer, total_steps=epochs * len(loader))
    for _ in range(epochs):
        for batch in loader:
            loss = model(**batch)["loss"]
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    dist.destroy_process_group()
    return weights or None  # whole on the first process, empty on the others


if __name__ == "__main__":
    run(train)
