"""How far predicted filters have left the fixed blur, and how much they differ between places."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from aa_plugins.layers import PredictedFilter, filters_of
from aa_plugins.ops import binomial_taps


@contextmanager
def watch(model: nn.Module) -> Iterator[dict[str, dict[str, float]]]:
    """Measures of every predicted filter over the forward passes inside, complete at its end.

    Both are distances between kernels as distributions of weight over the taps, half the sum of
    absolute differences, in [0, 1], averaged over images, groups and kept positions:

    - ``departure`` from the binomial filter of 3 taps: 0 for a filter that is the fixed blur;
    - ``spread`` about the mean kernel of each image and group: 0 for a filter that doesn't adapt.
    """
    found: dict[str, dict[str, float]] = {}
    sums = {name: torch.zeros(3, dtype=torch.float64) for name, _ in filters_of(model)}

    def hook(name: str):
        def measure(layer: PredictedFilter, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
            taps = layer.predict(inputs[0]).detach().float()
            fixed = blur_taps(layer.kernel_size).to(taps).view(-1, 1, 1)
            mean = taps.mean((3, 4), keepdim=True)
            distances = [(taps - other).abs().sum(2).mean() / 2 for other in (fixed, mean)]
            sums[name] += torch.tensor([*distances, 1.0])

        return measure

    handles = [layer.register_forward_hook(hook(name)) for name, layer in filters_of(model)]
    try:
        with torch.no_grad():
            yield found
    finally:
        for handle in handles:
            handle.remove()
        for name, (departure, spread, count) in sums.items():
            if count:
                found[name] = {
                    "departure": float(departure / count),
                    "spread": float(spread / count),
                }


def blur_taps(kernel_size: int) -> torch.Tensor:
    """The binomial filter of 3 taps in the middle of k × k: (k²,)."""
    line = torch.zeros(kernel_size)
    start = (kernel_size - 3) // 2
    line[start : start + 3] = binomial_taps(3)
    return (line[:, None] * line).flatten()
