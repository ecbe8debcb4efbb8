"""The plan under Hugging Face's Trainer.    python -m examples.everywhere.hf_trainer"""

import tempfile

from torch import Tensor
from transformers import Trainer, TrainingArguments

from examples.everywhere.job import BATCH, PLAN, UPDATES, Digits, Net, run
from groupwise import GroupedOptimizer, PlanScheduler


def train(epochs: int) -> dict[str, Tensor]:
    """The Trainer's own loop."""
    model = Net()
    optimizer = GroupedOptimizer(model, PLAN)
    scheduler = PlanScheduler(optimizer, total_steps=epochs * UPDATES)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=BATCH,
            max_grad_norm=0,  # the plan clips
            train_sampling_strategy="sequential", use_cpu=True, dataloader_pin_memory=False,
            report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=Digits(), optimizers=(optimizer, scheduler)).train()
    return model.state_dict()


if __name__ == "__main__":
    run(train)
