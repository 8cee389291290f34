"""What the predicted filters share: a predictor at kept positions, and a gate on its taps."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from aa_plugins.config import (
    INITS,
    PAD_MODES,
    PREDICTOR_INPUTS,
    PREDICTORS,
    AAConfig,
    check_choice,
    check_positive_int,
)
from aa_plugins.layers.blur_pool import BlurPool2d
from aa_plugins.layers.border_conv import BorderConv2d
from aa_plugins.layers.channel_norm import NORMS
from aa_plugins.layers.learned import LearnedFilter, filters_of, largest_divisor
from aa_plugins.ops import adaptive_blur2d, taps_from_logits
from aa_plugins.ops.geometry import out_size, split_channels

# One node for torch.fx, which can't follow choices made by shape.
torch.fx.wrap("adaptive_blur2d")

# Scale of the logits of a filter that starts behind a closed gate. It must not be zero: the gate
# opens in the first step, and in the second the predictor has to get a gradient through the norm.
GATED_NORM_SCALE = 0.1

# What `fuse` reads of a predictor's norm; those that other tools exchange for it have it, too.
FOLDED = {"batch": ("weight", "bias", "running_mean", "running_var", "eps"), "channel": ("bias",)}


def fold(gate: torch.Tensor) -> torch.Tensor:
    """Reflect a parameter into [0, 1] as a triangle wave of period 2.

    Unlike a clamp it has a gradient of ±1 everywhere, at 0 and beyond 1 too, so that a gate that
    starts at 0 opens whichever way its first step goes, and never gets stuck outside.
    """
    offset = gate - 2 * torch.floor(gate / 2 + 0.5)
    return torch.where(offset < 0, -offset, offset)


class PredictedFilter(LearnedFilter):
    """A filter whose k×k taps are predicted at each kept position and for each channel group.

    A convolution and a norm, run at kept positions only, give `logits_per_group` logits for
    each group, of which `weighting` of a subclass says how they become k² taps. What they start
    from is added as a constant, the prior, so that weight decay draws the filter to it: with a
    learned bias it would draw free taps to equal ones, which aren't low-pass. Where no logits give
    the start, a gate for each group, at 0 then, mixes the taps with it: with a unit impulse for
    init="identity".

    Args:
        channels: C of the input, divisible by `groups`.
        kernel_size: taps along each axis, odd.
        predictor_size: kernel size of the predictor's convolution, odd.
        logits_per_group: what the predictor emits for each group.
        predictor: "full" (one convolution) or "separable" (depthwise, then 1×1).
        predictor_input: what the predictor reads: the input ("raw"), or the input filtered with a
            fixed binomial of 3 taps and subsampled ("blurred"), which a shift hardly changes, or
            the mean over all positions ("pooled"), which gives one filter a group for the image.
        norm: of the logits: "batch", as published, or "channel" for networks without batch norms.
    """

    gated_inits: tuple[str, ...] = ("identity",)

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        predictor_size: int,
        logits_per_group: int,
        stride: int,
        groups: int,
        init: str,
        pad_mode: str,
        predictor: str,
        predictor_input: str,
        norm: str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("stride", stride), ("groups", groups)):
            check_positive_int(name, value)
        check_choice("init", init, INITS)
        check_choice("pad_mode", pad_mode, PAD_MODES)
        check_choice("predictor", predictor, PREDICTORS)
        check_choice("predictor_input", predictor_input, PREDICTOR_INPUTS)
        check_choice("norm", norm, tuple(NORMS))
        if channels % groups:
            raise ValueError(
                f"groups={groups} does not divide channels={channels}: choose a divisor of "
                f"{channels}: antialias() takes the largest that isn't above groups"
            )
        self.channels = channels
        self.kernel_size = kernel_size
        self.logits_per_group = logits_per_group
        self.stride = stride
        self.groups = groups
        self.init = init
        self.predictor = predictor
        self.predictor_input = predictor_input
        self.pad_mode = pad_mode
        factory = {"device": device, "dtype": dtype}
        predicted = groups * logits_per_group
        step = stride
        if predictor_input == "blurred":
            self.reader, step = BlurPool2d(channels, 3, stride, pad_mode, **factory), 1
        if predictor_input == "pooled":  # one position an image, too few for a batch norm
            predictor_size, step, norm = 1, 1, "channel"
        shape = {"kernel_size": predictor_size, "stride": step, "pad_mode": pad_mode, **factory}
        if predictor == "full":
            self.conv = BorderConv2d(channels, predicted, **shape)
        else:
            depthwise = BorderConv2d(channels, channels, groups=channels, **shape)
            pointwise = nn.Conv2d(channels, predicted, 1, bias=False, **factory)
            self.conv = nn.Sequential(depthwise, pointwise)
        self.norm_kind = norm
        self.norm = NORMS[norm](predicted, **factory)
        gated = init in self.gated_inits
        self.gate = nn.Parameter(torch.empty(groups, **factory)) if gated else None
        start = None if init == "paper" else self.start_logits()
        self.register_buffer("prior", None if start is None else torch.empty(len(start), **factory))
        self.reset_parameters()

    @staticmethod
    def options_of(config: AAConfig, channels: int) -> dict[str, Any]:
        """What a configuration says of any predicted filter."""
        return {
            "groups": largest_divisor(channels, config.groups),
            "init": config.init,
            "predictor": config.predictor,
            "predictor_input": config.predictor_input,
        }

    def start_logits(self) -> torch.Tensor | None:
        """Logits of one group, (logits_per_group,), of the fixed blur; None for equal ones."""
        return None

    def weighting(self, logits: torch.Tensor) -> tuple[torch.Tensor, bool, torch.Tensor | None]:
        """What `adaptive_blur2d` takes: weights or logits, whether to take their softmax, a bank.

        Args:
            logits: (N, G, logits_per_group, H', W').
        """
        return logits, True, None

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start as `init` says; idempotent, to be called after a host's own initialisation.

        What `fuse` has folded into the predictor is there again.
        """
        self._unfold()
        for weight in self.conv.parameters():
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        self.norm.reset_parameters()
        if self.init != "paper":
            # A zero convolution before a batch norm would divide gradients by √ε; a zero scale
            # after it leaves the prior alone to speak and the predictor ready to learn.
            self.norm.weight.fill_(0.0 if self.gate is None else GATED_NORM_SCALE)
        if self.prior is not None:
            self.prior.copy_(self.start_logits())
        if self.gate is not None:
            self.gate.zero_()

    def _unfold(self) -> None:
        last = self.last
        start = None if self.init == "paper" else self.start_logits()
        if self.prior is None and start is not None:
            self.prior = start.to(last.weight)
        if isinstance(self.norm, nn.Identity):
            last.bias = None
            norm = NORMS[self.norm_kind](last.out_channels)
            self.norm = norm.to(last.weight).train(self.training)

    @property
    def last(self) -> nn.Conv2d:
        """The convolution that gives the logits."""
        return self.conv[-1] if isinstance(self.conv, nn.Sequential) else self.conv

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, G, logits_per_group, ⌈H/stride⌉, ⌈W/stride⌉)."""
        logits = split_channels(self.norm(self.conv(self.read(x))), self.groups)
        if self.predictor_input == "pooled":
            size = (out_size(x.shape[-2], self.stride), out_size(x.shape[-1], self.stride))
            logits = logits.expand(*logits.shape[:3], *size)
        return logits if self.prior is None else logits + self.prior.view(-1, 1, 1).to(logits.dtype)

    def read(self, x: torch.Tensor) -> torch.Tensor:
        """What the predictor reads of (N, C, H, W)."""
        if self.predictor_input == "pooled":
            return x.mean((2, 3), keepdim=True)
        return self.reader(x) if self.predictor_input == "blurred" else x

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Taps at kept positions: (N, C, H, W) → (N, G, k², ⌈H/stride⌉, ⌈W/stride⌉), float32."""
        weights, softmax, bank = self.weighting(self.logits(x))
        return taps_from_logits(weights, softmax, bank, self.share())

    def share(self) -> torch.Tensor | None:
        """The gate's share of the taps, (G,) in [0, 1]; None without a gate."""
        return None if self.gate is None else fold(self.gate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉)."""
        weights, softmax, bank = self.weighting(self.logits(x))
        return adaptive_blur2d(
            x, weights, self.stride, self.pad_mode, softmax=softmax, bank=bank, gate=self.share()
        )

    def extra_repr(self) -> str:
        return (
            f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"groups={self.groups}, init={self.init!r}, pad_mode={self.pad_mode!r}, "
            f"predictor={self.predictor!r}, predictor_input={self.predictor_input!r}"
        )


@torch.no_grad()
def fuse(model: nn.Module) -> list[str]:
    """Fold norm and prior of every predicted filter into its predictor, in place, for inference.

    Of a norm over channels, which depends on the input, the prior alone goes into its bias. What
    the network computes in eval mode stays the same; names of parameters do not, so weights
    are loaded before.

    Returns:
        Names of the filters.

    Raises:
        ValueError: where a filter is in training mode, or has another norm than it was built
            with; nothing is folded then.
    """
    predicted = [row for row in filters_of(model) if isinstance(row[1], PredictedFilter)]
    layers = [(name, layer) for name, layer in predicted if _is_open(layer)]
    for name, layer in layers:
        if layer.training:
            raise ValueError(f"filter {name} is in training mode: call model.eval() before fuse()")
        missing = [a for a in FOLDED[layer.norm_kind] if getattr(layer.norm, a, None) is None]
        if missing:
            raise ValueError(
                f"the norm of filter {name} is {type(layer.norm).__name__} without "
                f"{' and '.join(missing)}, which can't be folded: give the filter back the norm "
                f"it was built with ({NORMS[layer.norm_kind].__name__}), or leave out fuse()"
            )
    for _, layer in layers:
        norm, last, prior = layer.norm, layer.last, layer.prior
        if layer.norm_kind == "batch":
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            last.weight.mul_(scale.view(-1, 1, 1, 1))
            bias = norm.bias - norm.running_mean * scale
            last.bias = nn.Parameter(bias if prior is None else bias + prior.repeat(layer.groups))
            layer.norm = nn.Identity()
        else:
            norm.bias.add_(prior.repeat(layer.groups))
        layer.prior = None
    return [name for name, _ in layers]


def _is_open(layer: PredictedFilter) -> bool:
    """Whether there is anything left to fold."""
    folded = isinstance(layer.norm, nn.Identity)
    return not folded and (layer.norm_kind == "batch" or layer.prior is not None)
