"""What a subsampling does to the spectrum of the map it reads.

After Ribeiro and Schön, "How Convolutional Neural Networks Deal with Aliasing", ICASSP 2021.

Keeping every s-th position of a map lays s × s parts of its spectrum, the folds, on top of one
another. One of them is the base band, the frequencies below the new Nyquist limit. A bin of the
subsampled spectrum is in one of four classes, by which folds pass there, that is, are no more than
20 dB below the largest value of the subsampled spectrum:

- ``non_aliased``: the base band alone;
- ``aliased``: one fold, but not the base band: moved to another frequency, yet unmixed;
- ``tangled``: several folds, which can't be told apart any more;
- ``no_pass``: none.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

CLASSES = ("tangled", "aliased", "non_aliased", "no_pass")
PASS_DECIBELS = 20.0


class Spectrum(NamedTuple):
    """Of each image: shares of its bins, by class, and the share of energy that can't be kept.

    Attributes:
        classes: (N, 4), in the order of `CLASSES`, mean over channels; a row sums to 1.
        above: (N,) share in [0, 1] of the energy, but for the mean of a channel, that lies above
            the new Nyquist limit; NaN where an image's map is constant.
    """

    classes: torch.Tensor
    above: torch.Tensor


def spectrum(x: torch.Tensor, stride: int) -> Spectrum:
    """What keeping every `stride`-th position of a map would do to it.

    Args:
        x: (N, C, H, W), the map that is subsampled; padded with zeros to a multiple of `stride`.
        stride: 2 or more.

    Raises:
        ValueError: for a stride of 1, which keeps everything.
    """
    if stride < 2:
        raise ValueError(f"stride={stride} subsamples nothing: give 2 or more")
    x = x.float() if x.dtype != torch.float64 else x
    return Spectrum(_classes(x, stride), _energy_above(x, stride))


def folds(x: torch.Tensor, stride: int) -> torch.Tensor:
    """The parts of a spectrum that a subsampling lays on top of one another, the base band first.

    Args:
        x: (N, C, H, W), padded with zeros to a multiple of `stride`.

    Returns:
        (s², N, C, ⌈H/s⌉, ⌈W/s⌉), complex; their mean is the spectrum of ``x[..., ::s, ::s]``.
    """
    parts = torch.fft.fft2(_padded(x, stride))
    for axis in (-2, -1):
        size = parts.shape[axis] // stride
        parts = parts.unflatten(axis, (stride, size))
        # A bin of the upper half is a negative frequency: its base band is the last fold.
        negative = torch.arange(size, device=x.device) >= -(-size // 2)
        order = torch.arange(stride, device=x.device)[:, None] - negative.long()
        shape = (stride, size) + (1,) * (-axis - 1)
        index = (order % stride).view(shape).expand(parts.shape)
        parts = parts.gather(axis - 1, index)
        parts = parts.movedim(axis - 1, 0)
    return parts.flatten(0, 1)


def _classes(x: torch.Tensor, stride: int) -> torch.Tensor:
    """(N, C, H, W) → (N, 4)."""
    parts = folds(x, stride)
    largest = parts.sum(0).abs().amax((-2, -1), keepdim=True)
    passes = (parts.abs() >= largest * 10 ** (-PASS_DECIBELS / 20)) & (parts.abs() > 0)
    count, base = passes.sum(0), passes[0]
    members = (count > 1, (count == 1) & ~base, (count == 1) & base, count == 0)
    return torch.stack([m.to(x.dtype).mean((1, 2, 3)) for m in members], 1)


def _energy_above(x: torch.Tensor, stride: int) -> torch.Tensor:
    """(N, C, H, W) → (N,): a Hann window keeps the border's jump from counting as detail."""
    x = x - x.mean((-2, -1), keepdim=True)
    for axis in (-2, -1):
        size = x.shape[axis]
        window = torch.hann_window(size + 2, periodic=False, dtype=x.dtype, device=x.device)[1:-1]
        x = x * window.view((-1,) + (1,) * (-axis - 1))
    energy = folds(x, stride).abs().square().sum((2, 3, 4))
    return energy[1:].sum(0) / energy.sum(0)


def _padded(x: torch.Tensor, stride: int) -> torch.Tensor:
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % stride, 0, -height % stride))
