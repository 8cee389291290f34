"""What a filter of a trained network lets through, and how it shares its channels out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from aa_plugins.diagnostics.places import Place

TONE_POSITIONS = 64


@torch.no_grad()
def frequency_response(place: Place, x: torch.Tensor, cycles: Sequence[int]) -> torch.Tensor:
    """Gain of a subsampling's map for pure tones, before positions are dropped.

    A predicted filter depends on what it reads, so the tones have each channel's own mean and
    standard deviation on real images; they run along either axis, and the gain is the mean.

    Args:
        place: where a filter stands.
        x: (N, C, H, W), what the place reads on real images.
        cycles: of the tones, within `TONE_POSITIONS` positions; half of those is the highest.

    Returns:
        (len(cycles), C) gains: 1 lets through, 0 takes out, below 0 turns around.
    """
    mean = x.mean((0, 2, 3)).view(1, -1, 1, 1)
    amplitude = (x.std((0, 2, 3)) * math.sqrt(2)).clamp_min(1e-6).view(1, -1, 1, 1)
    positions = torch.arange(TONE_POSITIONS, dtype=x.dtype, device=x.device)
    gains = []
    for count in cycles:
        wave = torch.cos(2 * math.pi * count / TONE_POSITIONS * positions)
        found = []
        for tone in (wave.view(1, 1, 1, -1), wave.view(1, 1, -1, 1)):
            tone = tone.expand(1, x.shape[1], TONE_POSITIONS, TONE_POSITIONS)
            passed = place.filtered_map(mean + amplitude * tone)
            inner = (..., slice(8, -8), slice(8, -8))
            tone, passed = tone[inner].flatten(2), passed[inner].flatten(2)
            if count:
                passed, tone = (v - v.mean(2, keepdim=True) for v in (passed, tone))
                found.append((passed * tone).sum(2) / (tone * tone).sum(2) / amplitude.flatten(1))
            else:
                found.append(passed.mean(2) / (mean + amplitude).flatten(1))
        gains.append(torch.cat(found).mean(0))
    return torch.stack(gains)


def group_similarity(x: torch.Tensor, groups: int) -> tuple[float, float]:
    """How alike the channels of a map are, within a filter's groups and across them.

    After Zou et al., "Delving Deeper into Anti-aliasing in ConvNets" (BMVC 2020), who share one
    predicted filter among the channels of a group: that suits channels that are alike.

    Args:
        x: (N, C, H, W).
        groups: contiguous blocks of channels; divides C.

    Returns:
        mean absolute correlation over positions of two channels of one group, and of two groups;
        NaN where there is no such pair.
    """
    channels = x.shape[1]
    values = x.double().transpose(0, 1).flatten(1)
    values = values - values.mean(1, keepdim=True)
    values = values / values.norm(dim=1, keepdim=True).clamp_min(1e-12)
    alike = (values @ values.T).abs()
    block = torch.arange(channels, device=x.device) // (channels // groups)
    same = block[:, None] == block
    other = ~torch.eye(channels, dtype=torch.bool, device=x.device)
    return float(alike[same & other].mean()), float(alike[~same].mean())
