"""Stand-ins for what `make gallery` installs and `make test` does not: small files of the same form, for the same code.

MiniLM (83 MB) becomes an untrained one of six layers and 24 units with a vocabulary of 200; Fashion-MNIST, a
package of Debian, becomes bytes at random. The tests see them on every machine, also where the real ones are installed.
"""

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from examples import packaged

WIDTH = 24
WORDS = "[PAD] [UNK] [CLS] [SEP] the dress top fits love size color it is i a and very small"


@pytest.fixture(scope="session", autouse=True)
def _stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("minilm", "fashion_mnist")}
    _small_minilm(folders["minilm"])
    _random_images(folders["fashion_mnist"])
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in folders.items():
            patch.setattr(packaged, name, lambda folder=folder: folder)
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


def _random_images(folder: Path) -> None:
    """The four IDX files of Fashion-MNIST, with as many images as the examples read."""
    generator = torch.Generator().manual_seed(0)
    for source, count in (("train", 2500), ("t10k", 3500)):
        images = torch.randint(256, (count, 28, 28), generator=generator, dtype=torch.uint8)
        kinds = torch.randint(10, (count,), generator=generator, dtype=torch.uint8)
        for what, values in (("images-idx3", images), ("labels-idx1", kinds)):
            head = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            (folder / f"{source}-{what}-ubyte.gz").write_bytes(gzip.compress(head + values.numpy().tobytes(), 1))
