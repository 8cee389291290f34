"""What a network costs: its multiply-accumulates, those of its filters included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from aa_plugins.layers import PredictedFilter


@contextmanager
def count_macs(model: nn.Module) -> Iterator[list[int]]:
    """Multiply-accumulates of the forward passes inside, in the list once they are done.

    Convolutions and matrix products, as torch's counter sees them, and the k² taps that a
    predicted filter applies at each kept position.
    """
    total: list[int] = []
    taps: list[int] = []

    def count_taps(layer: PredictedFilter, _: Any, output: torch.Tensor) -> None:
        taps.append(output.numel() * layer.kernel_size**2)

    predicted = (m for m in model.modules() if isinstance(m, PredictedFilter))
    hooks = [layer.register_forward_hook(count_taps) for layer in predicted]
    # torch's counter follows modules into the backward pass, and trips over views of parameters.
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad = False
        with FlopCounterMode(display=False) as counter:
            yield total
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in trained:
            parameter.requires_grad = True
    total.append(counter.get_total_flops() // 2 + sum(taps))
