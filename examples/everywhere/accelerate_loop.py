"""The plan under Accelerate.    python -m examples.everywhere.accelerate_loop"""

from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from examples.everywhere.job import BATCH, PLAN, Digits, Net, run
from groupwise import GroupedOptimizer, PlanScheduler


def train(epochs: int) -> dict[str, Tensor]:
    """The usual loop, with what `prepare` gives."""
    accelerator = Accelerator(cpu=True, step_scheduler_with_optimizer=False)
    loader = accelerator.prepare(DataLoader(Digits(), BATCH))
    model = Net()
    optimizer = GroupedOptimizer(model, PLAN)
    scheduler = PlanScheduler(optimizer, total_steps=epochs * len(loader))
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    for _ in range(epochs):
        for batch in loader:
            loss = model(**batch)["loss"]
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return accelerator.unwrap_model(model).state_dict()


if __name__ == "__main__":
    run(train)
