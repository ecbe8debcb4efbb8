"""Damaged checkpoints, by the thousand: each loads as it was written, or is refused in our own words.

python -m tests.checkpoint.damage 20000        so many random damages, then every bit of a small file
"""

import random
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from groupwise.checkpoint import load, save
from groupwise.errors import StateError
from tests.checkpoint.parts import same

Damage = Callable[[random.Random, bytes, bytes], bytes]


def content(seed: int, width: int = 8) -> dict[str, Any]:
    """Plain data of every kind, tensors that share their data among them."""
    draw = torch.Generator().manual_seed(seed)
    shared = torch.randn(width, width, generator=draw)
    return {
        "weights": [torch.randn(width, generator=draw), shared, shared[0], torch.empty(0), torch.tensor(seed)],
        "half": torch.randn(width, generator=draw).bfloat16(),
        "small": torch.tensor([1, 2, 60_000], dtype=torch.uint16),
        "text": {"name": "é" * 5, (1, "a"): [None, True, 1.5, -(2**40), float("inf")]},
    }


def flipped(draw: random.Random, data: bytes, _: bytes) -> bytes:
    """A few bits, or many."""
    damaged = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8, 100))):
        damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def overwritten(draw: random.Random, data: bytes, _: bytes) -> bytes:
    """A stretch of zeros, of ones or of noise, as a disk leaves it."""
    first, size = draw.randrange(len(data)), draw.choice((1, 4, 64, 512, 4096))
    filling = draw.choice((b"\0", b"\xff", None))
    stretch = data[first : first + size]
    new = draw.randbytes(len(stretch)) if filling is None else filling * len(stretch)
    return data[:first] + new + data[first + size :]


def cut(draw: random.Random, data: bytes, _: bytes) -> bytes:
    """A beginning, an end, or a file without a stretch in the middle."""
    first, last = sorted((draw.randrange(len(data)), draw.randrange(len(data))))
    return draw.choice((data[:first], data[last:], data[:first] + data[last:]))


def spliced(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Parts of two checkpoints of the same form in one file."""
    first, last = sorted((draw.randrange(len(data)), draw.randrange(len(data))))
    return draw.choice((data[:first] + other[first:], data[:first] + other[first:last] + data[last:]))


def repeated(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """A file with something more in it: a stretch twice, or another file before or behind."""
    first, last = sorted((draw.randrange(len(data)), draw.randrange(len(data))))
    return draw.choice((data[:last] + data[first:], data + other, other + data, data + draw.randbytes(30)))


DAMAGES: tuple[Damage, ...] = (flipped, overwritten, cut, spliced, repeated)


def verdict(path: Path, damaged: bytes, written: Any) -> str:
    """What comes of loading damaged bytes: "equal", "refused", or what must not be."""
    path.write_bytes(damaged)
    tracemalloc.start()
    began = time.process_time()
    try:
        found = load(path).extra
    except StateError as error:
        return _bounded(path, began, "refused" if str(path) in str(error) else f"nameless: {error}")
    except Exception as error:
        return f"foreign {type(error).__name__}: {error}"
    finally:
        tracemalloc.stop()
    return _bounded(path, began, "equal" if same(found, written) else "GARBAGE")


def _bounded(path: Path, began: float, said: str) -> str:
    """`said`, unless it took more than a small multiple of what the file is long."""
    peak, took = tracemalloc.get_traced_memory()[1], time.process_time() - began
    if peak > 20 * path.stat().st_size + 2**21 or took > 2 + path.stat().st_size / 1e6:
        return f"UNBOUNDED: {peak:,} bytes, {took:.2f} s"
    return said


def campaign(count: int, seed: int, width: int = 8) -> Counter[str]:
    """So many random damages of a checkpoint, by what came of them."""
    draw, found = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        data, other = (_written(path, content(seed + i, width)) for i in (0, 1))
        for i in range(count):
            damaged = DAMAGES[i % len(DAMAGES)](draw, data, other)
            if damaged not in (data, other):
                found[verdict(path, damaged, content(seed, width))] += 1
    return found


def every_bit(step: int = 1) -> Iterator[str]:
    """What comes of each single bit of a small checkpoint, or of every so many-th."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        data = _written(path, content(0, 2))
        for bit in range(0, 8 * len(data), step):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            yield verdict(path, bytes(damaged), content(0, 2))


def _written(path: Path, extra: Any) -> bytes:
    save(path, extra=extra)
    return path.read_bytes()


if __name__ == "__main__":
    for size in (8, 200):
        sys.stdout.write(f"width {size}: {dict(campaign(int(sys.argv[1]), 0, size))}\n")
    sys.stdout.write(f"every bit: {dict(Counter(every_bit(int(sys.argv[2]) if len(sys.argv) > 2 else 1)))}\n")
