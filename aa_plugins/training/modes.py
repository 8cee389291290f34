"""A detector in training mode, so that it gives its losses, and otherwise as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


@contextmanager
def giving_losses(detector: nn.Module) -> Iterator[None]:
    """Training mode for all but the backbone, norms and dropout, which stay in theirs."""
    before = {module: module.training for module in detector.modules()}
    kept = {*getattr(detector, "backbone", nn.Identity()).modules()}
    try:
        for module in before:
            if module not in kept and not isinstance(module, (_BatchNorm, _DropoutNd)):
                module.training = True
        yield
    finally:
        for module, training in before.items():
            module.training = training
