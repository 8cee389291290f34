"""What the tests of the filters share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def perturb() -> Callable[[nn.Module], nn.Module]:
    """Draw a filter's parameters and running statistics anew, so that no default hides an error."""

    @torch.no_grad()
    def apply(layer: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
            if name.endswith(("taps", "bank", "start", "num_batches_tracked")):
                continue
            low, high = (0.5, 1.5) if name.endswith("running_var") else (-0.5, 0.5)
            drawn = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(low + (high - low) * drawn)
        return layer

    return apply
