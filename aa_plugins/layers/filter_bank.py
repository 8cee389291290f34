"""The adaptive filter that is low-pass by construction: a predicted mixture of binomials."""

from __future__ import annotations

from typing import Any

import torch

from aa_plugins.config import AAConfig, check_bank
from aa_plugins.layers.constants import constant
from aa_plugins.layers.predicted import PredictedFilter, fold
from aa_plugins.ops import binomial_taps, taps_from_logits


class FilterBankPool2d(PredictedFilter):
    """Convex mixture of fixed low-pass filters predicted per pixel and group, and subsampling.

    (N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉). Each member is a binomial of an odd number of
    taps, whose response is a power of cos²: zero phase, DC gain 1, in [0, 1] and falling towards
    the Nyquist limit. A convex mixture keeps all of that at every pixel, which free taps don't.

    Args:
        channels: C of the input, divisible by `groups`.
        taps: odd numbers of taps of the members, rising; 1 is the identity.
        stride: pixels of the input between kept positions.
        groups, init, pad_mode, predictor, predictor_input: fields of `aa_plugins.AAConfig`, which
            explains them; it starts as the member with 3 taps or, where there is none, the first
            that blurs.

    Raises:
        ValueError: for an even, repeated or missing number of taps, or an unknown value.
    """

    gated_inits = ("identity", "binomial")

    def __init__(
        self,
        channels: int,
        taps: tuple[int, ...] = (1, 3, 5),
        stride: int = 2,
        groups: int = 8,
        init: str = "binomial",
        pad_mode: str = "reflect",
        predictor: str = "full",
        predictor_input: str = "raw",
        norm: str = "batch",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        taps = tuple(taps)
        check_bank(taps)
        self.taps = taps
        super().__init__(
            channels,
            taps[-1],
            predictor_size=3,
            logits_per_group=len(taps),
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

    @classmethod
    def of_config(cls, config: AAConfig, channels: int, **shared: Any) -> FilterBankPool2d:
        """The filter that a configuration describes."""
        taps = config.taps or tuple(range(1, config.kernel_size + 1, 2))
        return cls(channels, taps, **cls.options_of(config, channels), **shared)

    def members(self, like: torch.Tensor) -> torch.Tensor:
        """(M, k²) kernels of the bank, on the device and in the dtype of `like`."""
        return constant(self, "members", self._members, like)

    def start(self, like: torch.Tensor) -> torch.Tensor:
        """(M,) weights of the members at the binomial start."""
        return constant(self, "start", self._start, like)

    def _members(self) -> torch.Tensor:
        bank = torch.zeros(len(self.taps), self.kernel_size, self.kernel_size)
        for member, count in zip(bank, self.taps):
            before = (self.kernel_size - count) // 2
            line = binomial_taps(count)
            member[before : before + count, before : before + count] = line[:, None] * line
        return bank.flatten(1)

    def _start(self) -> torch.Tensor:
        return torch.eye(len(self.taps))[self.taps.index(3) if 3 in self.taps else 1]

    def weighting(self, logits: torch.Tensor) -> tuple[torch.Tensor, bool, torch.Tensor | None]:
        if self.init != "binomial":
            return logits, True, self.members(logits)
        # A bias towards one member strong enough to start with would leave the softmax no gradient.
        weights = taps_from_logits(logits, softmax=True)
        gate = fold(self.gate).to(weights.dtype).view(-1, 1, 1, 1)
        start = self.start(weights).view(-1, 1, 1)
        return gate * weights + (1 - gate) * start, False, self.members(weights)

    def share(self) -> torch.Tensor | None:
        return None if self.init == "binomial" else super().share()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, taps={self.taps}"
