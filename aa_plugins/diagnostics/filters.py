"""How far filters that were trained have left the fixed blur, how much they differ between places,
whether they blur where there is detail, and how much they let pass that aliases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from aa_plugins.layers import LearnedFilter, filters_of
from aa_plugins.ops import binomial_taps, blur2d
from aa_plugins.ops.geometry import kernel_size_of

MEASURES = ("departure", "spread", "follows_detail", "gain", "passes")


@contextmanager
def watch(model: nn.Module) -> Iterator[dict[str, dict[str, float]]]:
    """Measures of every filter with parameters over the forward passes inside, complete at its end.

    Two are distances between kernels as distributions of weight over the taps, half the sum of
    absolute differences, in [0, 1], averaged over images, groups and kept positions:

    - ``departure`` from the binomial filter of 3 taps: 0 for a filter that is the fixed blur;
    - ``spread`` about the mean kernel of each image and group: 0 for a filter that doesn't adapt.

    The third asks whether the blur follows frequency content, in square pixels of the filter's
    input, averaged over images and groups:

    - ``follows_detail``, the variance of kernels in the quarter of kept positions with the most
      detail (what the binomial filter of 3 taps takes away) less that in the quarter with the
      least: positive for a filter that blurs what would alias, negative for one that keeps it, 0
      for one that doesn't adapt. The binomial of 3 taps has a variance of 1, that of 5 of 2.

    And two say whether it is a low-pass filter, averaged over images, groups and kept positions:

    - ``gain``, the sum of the taps: 1 keeps a constant map as it is;
    - ``passes``, the mean squared gain over the frequencies that the filter's stride (2 where it
      has none) aliases: 0 for the ideal low-pass, 1 for no filter, 0.027 for the binomial of 3
      taps.
    """
    found: dict[str, dict[str, float]] = {}
    zeros = torch.zeros(len(MEASURES) + 1, dtype=torch.float64)  # the last one counts passes
    sums = {name: zeros.clone() for name, _ in filters_of(model)}

    def hook(name: str):
        def measure(layer: LearnedFilter, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
            taps = layer.predict(inputs[0]).detach().float()
            fixed = blur_taps(layer.kernel_size).to(taps).view(-1, 1, 1)
            mean = taps.mean((3, 4), keepdim=True)
            distances = [(taps - other).abs().sum(2).mean() / 2 for other in (fixed, mean)]
            detail = detail_of(layer, inputs[0])
            follows = top_less_bottom(variance_of(taps).flatten(2), detail.flatten(2)).mean()
            gain, passes = taps.sum(2).mean(), aliased_power(taps, max(layer.stride, 2))
            sums[name] += torch.tensor([*distances, follows, gain, passes, 1.0])

        return measure

    handles = [layer.register_forward_hook(hook(name)) for name, layer in filters_of(model)]
    try:
        with torch.no_grad():
            yield found
    finally:
        for handle in handles:
            handle.remove()
        for name, (*measures, count) in sums.items():
            if count:
                found[name] = {key: float(m / count) for key, m in zip(MEASURES, measures)}


def blur_taps(kernel_size: int) -> torch.Tensor:
    """The binomial filter of 3 taps in the middle of k × k, or of k where that is even: (k²,)."""
    if kernel_size % 2 == 0:
        line = binomial_taps(kernel_size)
        return (line[:, None] * line).flatten()
    line = torch.zeros(kernel_size)
    start = (kernel_size - 3) // 2
    line[start : start + 3] = binomial_taps(3)
    return (line[:, None] * line).flatten()


def variance_of(taps: torch.Tensor) -> torch.Tensor:
    """Of kernels about their own centres, in square pixels: (N, G, k², H, W) → (N, G, H, W)."""
    weights = taps / taps.sum(2, keepdim=True)  # a joint softmax shares one unit among the groups
    line = torch.arange(kernel_size_of(taps.shape[2]), dtype=taps.dtype, device=taps.device)
    total = torch.zeros_like(taps[:, :, 0])
    for place in torch.meshgrid(line, line, indexing="ij"):
        place = place.flatten().view(-1, 1, 1)
        centre = (weights * place).sum(2, keepdim=True)
        total += (weights * (place - centre).square()).sum(2)
    return total


def aliased_power(taps: torch.Tensor, stride: int) -> torch.Tensor:
    """Mean squared gain of kernels (N, G, k², H, W) over frequencies that `stride` aliases.

    Those within 1 / (2 · stride) cycles a pixel along both axes aren't. A kernel's squared gain is
    a sum of cosines of the distances between its taps, each with a mean in closed form.
    """
    line = torch.arange(kernel_size_of(taps.shape[2]), dtype=taps.dtype, device=taps.device)
    distance = line[:, None] - line
    low = torch.sinc(distance / stride) / stride  # a cosine's mean over the lower band, one axis
    every = torch.eye(len(line), dtype=taps.dtype, device=taps.device)
    aliased = (torch.kron(every, every) - torch.kron(low, low)) / (1 - 1 / stride**2)
    return torch.einsum("ngthw,tu,nguhw->nghw", taps, aliased, taps).mean()


def detail_of(layer: LearnedFilter, x: torch.Tensor) -> torch.Tensor:
    """What the binomial filter of 3 taps takes away, absolute, at kept positions, mean over each
    group's channels: (N, C, H, W) → (N, G, ⌈H/stride⌉, ⌈W/stride⌉)."""
    taps = blur_taps(3).view(3, 3).to(x.device)
    x = x.float()
    smooth = blur2d(x, taps, layer.stride, layer.pad_mode)
    detail = (x[..., :: layer.stride, :: layer.stride] - smooth).abs()
    return detail.unflatten(1, (layer.groups, -1)).mean(2)


def top_less_bottom(values: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Mean of the quarter of `values` where `by` is largest less that where it is smallest, over
    the last axis."""
    ordered = values.gather(-1, by.argsort(-1))
    quarter = max(1, ordered.shape[-1] // 4)
    return ordered[..., -quarter:].mean(-1) - ordered[..., :quarter].mean(-1)
