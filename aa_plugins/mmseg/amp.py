"""Mixed precision without a GPU: mmengine's own wrapper takes one for granted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Runs the forward pass in bfloat16 on the CPU; its range needs no scaling of the loss."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Where mmengine computes the loss."""
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield
