"""Patch mergings, as Swin's: every 2×2 window merged densely, then the filter."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_flatten, tree_unflatten

from aa_plugins.layers.strided import Filtered


class FilterAfterMerging(Filtered):
    """Merges every 2×2 window at stride 1, then filters, after norm and reduction.

    The windows are laid out side by side, so that the original, non-overlapping merge computes
    each of them: its order of channels, norm and reduction need not be known here.

    What is merged are maps (B, H, W, C), or tokens (B, H·W, C) with their height and width: two
    numbers, or one pair, by position or by name. Tokens come back as tokens, with their size where
    the original gives that, too.
    """

    def forward(self, x: torch.Tensor, *size: Any, **named: Any) -> Any:
        numbers, structure = tree_flatten((size, named))
        if not numbers:
            return self._filtered(super().forward(_windows(x)))
        height, width = numbers
        windows = _windows(x.unflatten(1, (height, width)))
        height, width = windows.shape[1:3]
        size, named = tree_unflatten([height, width], structure)
        merged = super().forward(windows.flatten(1, 2), *size, **named)
        tokens = merged[0] if isinstance(merged, tuple) else merged
        maps = self._filtered(tokens.unflatten(1, (height // 2, width // 2)))
        tokens = maps.flatten(1, 2)
        return (tokens, tuple(maps.shape[1:3])) if isinstance(merged, tuple) else tokens

    def _filtered(self, merged: torch.Tensor) -> torch.Tensor:
        """(B, H, W, C) → (B, ⌈H/2⌉, ⌈W/2⌉, C)."""
        return self.postfilter(merged.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _windows(x: torch.Tensor) -> torch.Tensor:
    """Every 2×2 window of (B, H, W, C), side by side; odd maps are padded as the merge pads."""
    height, width = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
    for axis in (1, 2):
        pairs = (x.narrow(axis, 0, x.shape[axis] - 1), x[_from_one(axis)])
        x = torch.stack(pairs, axis + 1).flatten(axis, axis + 1)
    return x


def _from_one(axis: int) -> tuple[slice, ...]:
    return (slice(None),) * axis + (slice(1, None),)
