"""Does a converted network compute what the plain one does? A comparison from which nothing hides.

Default initialisations hide errors: a zero-initialised last norm or layer scale makes a network
blind to its main path, and a zero-initialised head to everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def perturb(model: nn.Module, x: torch.Tensor, seed: int = 0) -> None:
    """Draw anew every norm, bias, scale and constant of `model`, then calibrate its batch norms.

    Args:
        model: a network, in place; ends in eval mode.
        x: (N, C, H, W), on which the running statistics are taken: N of 2 or more.
        seed: of the draw, on which the global generator has no influence.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.numel() and (parameter.ndim <= 1 or parameter.min() == parameter.max()):
            drawn = torch.rand(parameter.shape, generator=generator)
            low, high = _range(name, float(parameter.abs().max()))
            parameter.copy_(low + (high - low) * drawn)
    calibrate(model, x)


@torch.no_grad()
def calibrate(model: nn.Module, x: torch.Tensor) -> None:
    """Give every batch norm of `model` the statistics of `x`, in place; it ends in eval mode."""
    model.eval()
    norms = batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().reset_running_stats()
        norm.momentum = None  # the statistics of this very pass
    if norms:
        model(x)
    for norm, momentum in zip(norms, momenta):
        norm.eval().momentum = momentum


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """Every batch norm of `model`, whatever its class and dimension."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def _range(name: str, start: float) -> tuple[float, float]:
    """Where to draw a parameter from.

    A residual branch that starts at zero stays weaker than its input: a deep random network with
    strong branches amplifies rounding errors a hundredfold.
    """
    if name.endswith("bias"):
        return -0.2, 0.2
    return (0.1, 0.3) if start < 0.1 else (0.5, 1.5)


def relative_difference(found: Iterable[torch.Tensor], expected: Iterable[torch.Tensor]) -> float:
    """Largest |found − expected| over largest |expected| of a tensor: the worst of all tensors.

    Infinite where something found is not a number.

    Raises:
        ValueError: where the shapes differ, or an expected tensor is zero or not finite, so that
            a comparison would say nothing.
    """
    worst = 0.0
    for index, (a, b) in enumerate(zip(found, expected, strict=True)):
        if a.shape != b.shape:
            raise ValueError(f"tensor {index} is {tuple(a.shape)}, expected {tuple(b.shape)}")
        scale = b.abs().max()
        if not 0 < scale < torch.inf:
            raise ValueError(f"tensor {index} can't be compared with: its largest value is {scale}")
        difference = float((a - b).abs().max() / scale)
        worst = max(worst, math.inf if math.isnan(difference) else difference)
    return worst
