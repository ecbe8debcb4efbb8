"""TRL's trainer and PEFT's adapters, where they are installed, take a plan file as an optimizer's class."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from groupwise import GroupedOptimizer, Plan, PlanScheduler
from groupwise.integrations import OptimizerFactory, PlanMixin
from groupwise.presets import preset

trl, peft = pytest.importorskip("trl"), pytest.importorskip("peft")
datasets, transformers = pytest.importorskip("datasets"), pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = ["[PAD]", "[UNK]", "[EOS]", *(f"w{i}" for i in range(20))]
TOKENS = [[3 + (i + j) % 20 for j in range(8)] for i in range(16)]
DENSE = """
[[rule]]
match = "*"
optimizer = "AdamW"
lr = { linear = 1e-2 }

[[rule]]
label = "matrices"
match = { role = "matrix" }
optimizer = "SGD"
lr = { linear = 1e-1 }
weight_decay = 0.0
"""


class PlanSFT(PlanMixin, trl.SFTTrainer):  # type: ignore[misc]  # TRL's class has no types
    """What a person would write."""


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]"
    )


def tokens() -> Any:
    """Token ids; with a fingerprint of its own, for which nothing is pickled."""
    table = importlib.import_module("pyarrow").table({"input_ids": TOKENS})
    return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint="tokens")


def trained(folder: Path, plan: str, **options: Any) -> Any:
    """A trainer after four updates under the plan file."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        pad_token_id=0, eos_token_id=2, bos_token_id=2,
    )  # fmt: skip
    arguments = trl.SFTConfig(
        str(folder), max_steps=4, per_device_train_batch_size=2, max_grad_norm=0, use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="no", logging_strategy="no", dataloader_pin_memory=False, max_length=16,
        bf16=False, gradient_checkpointing=False, dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    file = folder / "plan.toml"
    file.write_text(plan)
    trainer = PlanSFT(
        transformers.LlamaForCausalLM(config), arguments, processing_class=tokenizer(),
        train_dataset=tokens(),
        optimizer_cls_and_kwargs=(OptimizerFactory, {"plan": str(file)}), **options,
    )  # fmt: skip
    trainer.train()
    return trainer


def inner(optimizer: Any) -> Any:
    return getattr(optimizer, "optimizer", optimizer)


def test_trls_trainer_takes_a_plan_file(tmp_path: Path) -> None:
    trainer = trained(tmp_path, DENSE)
    assert isinstance(inner(trainer.optimizer), GroupedOptimizer)
    assert inner(trainer.optimizer).plan == Plan.loads(DENSE)
    assert isinstance(trainer.lr_scheduler, PlanScheduler) or isinstance(
        getattr(trainer.lr_scheduler, "scheduler", None), PlanScheduler
    )
    assert {group["algorithm"] for group in inner(trainer.optimizer).param_groups} == {"AdamW", "SGD"}


@pytest.mark.parametrize("name", ["lora", "lora-plus"])
def test_pefts_adapters_train_under_their_presets_and_nothing_else_does(tmp_path: Path, name: str) -> None:
    adapters = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = trained(tmp_path, preset(name).text, peft_config=adapters)
    groups = inner(trainer.optimizer).param_groups
    names = [name for group in groups for name in group["param_names"]]
    trains = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert len(names) == len(trains) == 8
    assert all("lora_" in name for name in names)
    rates = {name.rpartition("lora_")[2][0]: group["lr"] for group in groups for name in group["param_names"]}
    assert name == "lora" or rates["B"] == pytest.approx(16 * rates["A"])
