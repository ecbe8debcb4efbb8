"""A stand-in for what `make gallery` installs and `make test` does not: small files of its form, for the same code.

MiniLM (83 MB) becomes an untrained one of six layers and 24 units with a vocabulary of 200, and the GPT that LoRA
adapts has had two steps. The tests see them on every machine, also where the real one is installed.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

import examples.lora.train
from examples import packaged

WIDTH = 24
WORDS = "[PAD] [UNK] [CLS] [SEP] the dress top fits love size color it is i a and very small"


@pytest.fixture(scope="session", autouse=True)
def _stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("minilm")
    _small_minilm(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaged, "minilm", lambda: folder)
        patch.setattr(examples.lora.train, "PRETRAINING", 2)
        yield


def _small_minilm(folder: Path) -> None:
    """`model.safetensors` and `tokenizer.json` under the names of the real ones."""
    words = WORDS.split()
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    shapes = {
        "embeddings.word_embeddings.weight": (200, WIDTH),
        "embeddings.position_embeddings.weight": (512, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        **_affine("embeddings.LayerNorm", WIDTH),
    }
    for layer in range(6):
        for part, *sizes in (
            *((f"attention.self.{what}", WIDTH, WIDTH) for what in ("query", "key", "value")),
            *(("attention.output.dense", WIDTH, WIDTH), ("attention.output.LayerNorm", WIDTH)),
            *(
                ("intermediate.dense", 4 * WIDTH, WIDTH),
                ("output.dense", WIDTH, 4 * WIDTH),
                ("output.LayerNorm", WIDTH),
            ),
        ):
            shapes |= _affine(f"encoder.layer.{layer}.{part}", *sizes)
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors")


def _affine(name: str, *sizes: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a weight and of its bias."""
    return {f"{name}.weight": sizes, f"{name}.bias": sizes[:1]}
