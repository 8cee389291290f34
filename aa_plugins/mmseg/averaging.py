"""A segmentor that is averaged over sampling phases at test time."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS

from aa_plugins.training.average import averaged
from aa_plugins.training.views import spread_offsets


@MODELS.register_module()
class PhaseAveragedEncoderDecoder(EncoderDecoder):
    """mmseg's EncoderDecoder, whose predictions are means over phases; it trains as ever.

    Every prediction costs `phases` forward passes.

    Args:
        phases: K, a power of two, or stride².
        stride: the total stride of the network in pixels of its input.
    """

    def __init__(self, *args: Any, phases: int, stride: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stride = stride
        self.offsets = spread_offsets(phases, stride)

    def encode_decode(self, inputs: torch.Tensor, batch_img_metas: list[dict]) -> torch.Tensor:
        """(N, 3, H, W) → logarithms of the mean probabilities, (N, classes, H, W)."""

        def logits(images: torch.Tensor) -> torch.Tensor:
            return self._forward(images)

        return averaged(logits, inputs, self.stride, self.offsets)
