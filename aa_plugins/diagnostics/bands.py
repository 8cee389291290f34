"""Radial bands of an image's spectrum, to see which of them a network leans on.

After Vasconcelos et al., "Impact of Aliasing on Generalization in Deep Convolutional Networks",
ICCV 2021: accuracy as each of 16 bands is taken from the input. Their edges aren't published; ours
are equally wide in radius.
"""

from __future__ import annotations

import math

import torch

BANDS = 16
LARGEST_RADIUS = math.sqrt(0.5)  # cycles a pixel, in the corner of the spectrum


def band_edges(bands: int = BANDS) -> list[float]:
    """Radii between which the bands lie, in cycles a pixel: bands + 1 numbers from 0 to √½."""
    return [LARGEST_RADIUS * index / bands for index in range(bands + 1)]


def band_of(height: int, width: int, bands: int = BANDS) -> torch.Tensor:
    """The band of every frequency of a spectrum, (H, W) in the order of `torch.fft.fft2`.

    The bands are a partition; the mean, at radius 0, is in none (−1): without it an image would
    be another exposure.
    """
    rows, columns = torch.fft.fftfreq(height), torch.fft.fftfreq(width)
    radius = torch.hypot(rows[:, None], columns)
    found = (radius / LARGEST_RADIUS * bands).long().clamp(max=bands - 1)
    found[0, 0] = -1
    return found


def without_band(images: torch.Tensor, band: int, bands: int = BANDS) -> torch.Tensor:
    """Images without the frequencies of one band.

    Args:
        images: (..., H, W), floating.
        band: 0, the lowest, to ``bands`` − 1.

    Raises:
        ValueError: for a band that there isn't.
    """
    if not 0 <= band < bands:
        raise ValueError(f"band={band} of {bands}: give 0 to {bands - 1}")
    height, width = images.shape[-2:]
    keep = (band_of(height, width, bands) != band).to(images.device)
    # The mask is even under a change of sign of both frequencies, so what is left is real.
    return torch.fft.ifft2(torch.fft.fft2(images) * keep).real
