"""Torch as the array library of the formulas that Keras has too."""

from __future__ import annotations

from functools import partial
from typing import Final

import torch
from torch.nn.functional import softplus

from groupwise._loss_weights import Namespace

TORCH: Final = Namespace(
    exp=torch.exp,
    log=torch.log,
    mean=torch.mean,
    sigmoid=torch.sigmoid,
    softmax=partial(torch.softmax, dim=0),
    softplus=softplus,
    sqrt=torch.sqrt,
    where=torch.where,
)
