"""Whether a network computes what another one does, and whether the comparison can see it.

Fresh networks hide errors: a zero-initialised last norm blinds a residual block to its main path,
a zero head blinds everything to everything, and batch norms that never saw data let signals fade.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def awaken(model: nn.Module, generator: torch.Generator) -> None:
    """Draw anew, in place, every parameter that starts constant: norms, biases, scales, heads.

    Vectors become 1 ± 0.2 (scales) or 0 ± 0.1 (biases), matrices and kernels normal with a
    standard deviation of 1/√(fan-in).
    """
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() or parameter.numel() == 0:
            continue
        if not torch.equal(parameter, parameter.flatten()[0].expand_as(parameter)):
            continue
        noise = torch.randn(parameter.shape, generator=generator).to(parameter)
        if sum(size > 1 for size in parameter.shape) > 1:
            fan_in = parameter[0].numel()
            parameter.copy_(noise * fan_in**-0.5)
        elif name.endswith(("bias", "beta")):
            parameter.copy_(0.1 * noise)
        else:
            parameter.copy_(1 + 0.2 * noise)


@torch.no_grad()
def calibrate(model: nn.Module, x: torch.Tensor) -> None:
    """Set the statistics of every batch norm to those of the batch `x`, in place."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum, module.kept_momentum = None, module.momentum
            module.train()
    model(x)
    for module, mode in training.items():
        module.training = mode
        if hasattr(module, "kept_momentum"):
            module.momentum = module.kept_momentum
            del module.kept_momentum


def maps_of(output: Any) -> list[torch.Tensor]:
    """The tensors of a network's output: a tensor, or lists and mappings of them."""
    if isinstance(output, torch.Tensor):
        return [output]
    values = output.values() if isinstance(output, Mapping) else output
    return [tensor for value in values for tensor in maps_of(value)]


def relative_difference(output: Any, reference: Any) -> float:
    """Largest |output − reference| over largest |reference|, the worst of all maps.

    Raises:
        ValueError: where shapes differ, or a map of the reference is zero or not finite.
    """
    worst = 0.0
    pairs = list(zip(maps_of(output), maps_of(reference), strict=True))
    for ours, theirs in pairs:
        if ours.shape != theirs.shape:
            raise ValueError(f"shapes differ: {tuple(ours.shape)} and {tuple(theirs.shape)}")
        scale = theirs.abs().max().item()
        if not 0 < scale < float("inf"):
            raise ValueError(f"a map whose largest value is {scale} can't be compared")
        worst = max(worst, ((ours - theirs).abs().max() / scale).item())
    return worst
