"""The plan in a plain loop: what every other program is held against.    python -m examples.everywhere.plain_loop"""

from torch import Tensor
from torch.utils.data import DataLoader

from examples.everywhere.job import BATCH, PLAN, Digits, Net, run
from groupwise import GroupedOptimizer, PlanScheduler


def train(epochs: int) -> dict[str, Tensor]:
    """The usual loop."""
    loader = DataLoader(Digits(), BATCH)
    model = Net()
    optimizer = GroupedOptimizer(model, PLAN)
    scheduler = PlanScheduler(optimizer, total_steps=epochs * len(loader))
    for _ in range(epochs):
        for batch in loader:
            loss = model(**batch)["loss"]
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return model.state_dict()


if __name__ == "__main__":
    run(train)
