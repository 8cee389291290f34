"""The adaptive filter with free taps (Zou et al., "Delving Deeper into Anti-aliasing")."""

from __future__ import annotations

from typing import Any

import torch

from aa_plugins.config import (
    NORMALIZATIONS,
    AAConfig,
    check_choice,
    check_kernel_size,
    check_normalization,
)
from aa_plugins.layers.predicted import PredictedFilter
from aa_plugins.ops import binomial_taps
from aa_plugins.ops.geometry import split_channels


class AdaptiveBlurPool2d(PredictedFilter):
    """Low-pass filter predicted per pixel and channel group, and subsampling.

    (N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉). Written from Zou, Xiao, Yu and Lee, BMVC 2020,
    section 3; unlike the published layer it predicts at kept positions only.

    Args:
        channels: C of the input, divisible by `groups`.
        stride: pixels of the input between kept positions.
        kernel_size, groups, normalize, init, pad_mode, predictor, predictor_input: fields of
            `aa_plugins.AAConfig`, which explains them; a "joint" softmax has a DC gain of 1/groups
            on average.

    Raises:
        ValueError: for an even kernel, groups that do not divide channels, or an unknown value.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        stride: int = 2,
        groups: int = 8,
        normalize: str = "group",
        init: str = "binomial",
        pad_mode: str = "reflect",
        predictor: str = "full",
        predictor_input: str = "raw",
        norm: str = "batch",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_kernel_size(kernel_size, odd=True)
        check_choice("normalize", normalize, NORMALIZATIONS)
        check_normalization(normalize, init)
        super().__init__(
            channels,
            kernel_size,
            predictor_size=kernel_size,
            logits_per_group=kernel_size**2,
            stride=stride,
            groups=groups,
            init=init,
            pad_mode=pad_mode,
            predictor=predictor,
            predictor_input=predictor_input,
            norm=norm,
            device=device,
            dtype=dtype,
        )
        self.normalize = normalize

    @classmethod
    def of_config(cls, config: AAConfig, channels: int, **shared: Any) -> AdaptiveBlurPool2d:
        """The filter that a configuration describes."""
        options = cls.options_of(config, channels)
        return cls(channels, config.kernel_size, normalize=config.normalize, **options, **shared)

    def start_logits(self) -> torch.Tensor:
        taps = binomial_taps(self.kernel_size)
        return (taps[:, None] * taps).log().flatten()

    def weighting(self, logits: torch.Tensor) -> tuple[torch.Tensor, bool, torch.Tensor | None]:
        if self.normalize == "group":
            return logits, True, None
        return split_channels(logits.flatten(1, 2).softmax(1), self.groups), False, None

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, normalize={self.normalize!r}"
