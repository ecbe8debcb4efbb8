"""The plan under Lightning.    python -m examples.everywhere.lightning_module"""

import lightning
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader

from examples.everywhere.job import BATCH, PLAN, Digits, Net, run
from groupwise import GroupedOptimizer, PlanScheduler


class Module(lightning.LightningModule):
    """The network and how it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """The loss of a batch."""
        return self.net(**batch)["loss"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer, and a scheduler that is stepped at each update."""
        optimizer = GroupedOptimizer(self.net, PLAN)
        scheduler = PlanScheduler(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def train(epochs: int) -> dict[str, Tensor]:
    """Lightning's own loop."""
    loader = DataLoader(Digits(), BATCH)
    module = Module()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    lightning.Trainer(accelerator="cpu", max_epochs=epochs, enable_model_summary=False, **quiet).fit(module, loader)
    return module.net.state_dict()


if __name__ == "__main__":
    run(train)
