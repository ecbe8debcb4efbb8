"""Libraries that import torchvision, beside a CPU torch.

torchvision's wheel on PyPI is built for CUDA. Beside a CPU build of torch its operators do not load, and its import
stumbles over the two that it registers shapes for. Declaring these two lets the import pass; nothing here calls them.
"""

import functools
import importlib
import sys
from types import ModuleType
from typing import Any

_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[Any] = []  # a library's definitions live as long as it does

_IMPORTERS = ("timm", "transformers", "lightning")


@functools.cache
def import_torchvision() -> None:
    """Import torchvision in whatever way this machine allows."""
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _kept.append(torch.library.Library("torchvision", "FRAGMENT"))
        for operator in _OPERATORS:
            _kept[-1].define(operator + _SIGNATURE)


def import_timm() -> ModuleType:
    """timm, with torchvision imported first."""
    import_torchvision()
    return importlib.import_module("timm")


def needs_torchvision(code: str) -> bool:
    """Whether some code imports a library that imports torchvision."""
    return any(f"import {name}" in code or f"from {name}" in code for name in _IMPORTERS)
