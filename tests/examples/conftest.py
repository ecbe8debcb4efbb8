"""A stand-in for what `make gallery` installs and `make test` does not: small files of its form, for the same code.

MiniLM (83 MB) becomes an untrained one of six layers and 24 units with a vocabulary of 200, EfficientNet an untrained
network of its names, Fashion-MNIST 2,500 pictures of noise, and the GPT that LoRA adapts has had two steps. The tests
see them on every machine, also where the real ones are installed.
"""

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

import examples.lora.train
from examples import packaged

WIDTH = 24
WORDS = "[PAD] [UNK] [CLS] [SEP] the dress top fits love size color it is i a and very small"


@pytest.fixture(scope="session", autouse=True)
def _stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder, pictures = tmp_path_factory.mktemp("minilm"), tmp_path_factory.mktemp("pictures")
    _small_minilm(folder)
    _pictures(pictures)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaged, "minilm", lambda: folder)
        patch.setattr(packaged, "efficientnet", SmallEfficientNet)
        patch.setattr(packaged, "fashion_mnist", lambda: pictures)
        patch.setattr(examples.lora.train, "PRETRAINING", 2)
        yield


class SmallEfficientNet(nn.Module):
    """A stem, 16 blocks and a head under EfficientNet's names."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = nn.Conv2d(3, 4, 3, stride=8, bias=False), nn.BatchNorm2d(4)
        blocks = [nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6()) for _ in range(16)]
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1, self._fc = nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Linear(8, 1000)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self._bn0(self._conv_stem(pictures))
        for block in self._blocks:
            x = x + block(x)
        return self._fc(self._bn1(self._conv_head(x)).mean((2, 3)))


def _pictures(folder: Path) -> None:
    """Images and labels in the form of Fashion-MNIST's files."""
    generator = torch.Generator().manual_seed(0)
    for name, count in (("train", 2500), ("t10k", 1000)):
        for what, shape, values in (("images-idx3", (count, 28, 28), 256), ("labels-idx1", (count,), 10)):
            head = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
            content = torch.randint(values, shape, dtype=torch.uint8, generator=generator).numpy().tobytes()
            (folder / f"{name}-{what}-ubyte.gz").write_bytes(gzip.compress(head + content, compresslevel=1))


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
