"""What to filter with, and where: the one configuration that every host passes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

# Filters by name, and the file of aa_plugins.layers and class that make each: a file and a row.
FILTERS = {
    "adaptive": "adaptive.AdaptiveBlurPool2d",
    "bank": "filter_bank.FilterBankPool2d",
    "trained": "trained.TrainedBlurPool2d",
    "blur": "blur_pool.BlurPool2d",
    "flc": "frequency_low_cut.FrequencyLowCutPool2d",
    "aps": "polyphase.AdaptivePolyphasePool2d",
}
PREDICTED = ("adaptive", "bank")
LEARNED = (*PREDICTED, "trained")
# Linear, of DC gain 1 and without parameters: the same wherever they stand.
FIXED = ("blur", "flc")
NORMALIZATIONS = ("group", "joint")
INITS = ("binomial", "identity", "paper")
FIXED_INITS = ("binomial", "identity")  # of filters without a predictor
PREDICTORS = ("full", "separable")
PREDICTOR_INPUTS = ("raw", "blurred", "pooled")
PLACEMENTS = ("post", "pre")
KERNELS = ("any", "small")
ACTIVATIONS = ("same", "silu", "softplus")
PAD_MODES = ("reflect", "replicate", "zeros", "circular")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError, naming value and remedy, unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown: choose one of {', '.join(choices)}")


@dataclass(frozen=True)
class AAConfig:
    """Anti-aliasing of a network: the filter, its start, and the sites that get one.

    Args:
        filter: "adaptive" predicts free k×k taps for each pixel and channel group (Zou et al.,
            BMVC 2020); "bank" predicts a convex mixture of fixed zero-phase low-pass filters;
            "trained" has one kernel a channel group that training changes and the image doesn't;
            "blur" is a fixed binomial filter (Zhang, ICML 2019); "flc" cuts off in the Fourier
            domain what would alias, with a circular border (FrequencyLowCut pooling, Grabinski et
            al., ECCV 2022); "aps" blurs, then keeps the grid of positions with the largest norm
            (adaptive polyphase sampling, Chaman and Dokmanić, CVPR 2021), for classifiers without
            strided shortcuts; "none" converts nothing, so that a baseline runs through the same
            configuration.
        kernel_size: taps along each axis. "adaptive": odd, 3 to 7; "blur", "trained": 2 to 7;
            "bank": odd, 3 to 7, the widest binomial of the bank (its members are 1, 3, …,
            kernel_size taps); "aps": 1 (no blur) to 7.
        groups: channel groups that share one predicted or trained filter. Where it doesn't divide a
            site's channels, their largest divisor below it is used there and reported.
        normalize: "group" (softmax over each group's taps: DC gain 1) or "joint" (softmax over
            all groups and taps, as the published code does; with init="paper" only).
        init: "binomial" (starts as the fixed blur), "identity" (starts as the unmodified
            network) or "paper" (Kaiming predictor, unit norm).
        pad_mode: "reflect", "replicate", "zeros" or "circular". "replicate" is the one to export
            with: it has no test on shapes, and every runtime knows it.
        max_pool, avg_pool, conv, shortcut, merging: which kinds of sites to convert: strided
            max-pools, average pools, strided convolutions, residual shortcuts, patch mergings.
        stem: also convert strided convolutions of the stem whose kernel overlaps (patch
            embeddings never are).
        dilated: also filter, at stride 1, where a stride was replaced by dilation.
        placement: "post" runs a strided convolution densely and filters what its activation gives
            (Zhang, ICML 2019); "pre" leaves it its stride and filters what it reads (Vasconcelos et
            al., ICCV 2021), at next to no cost where the filter is fixed (a predicted one works at
            every position then), but lets pass what the convolution itself aliases. Pools and
            patch mergings are filtered behind them in both.
        kernels: "any", or "small": of strided convolutions only those of at most 3×3, too small to
            learn a low-pass filter themselves (Vasconcelos et al., ICCV 2021, section 3).
        activation: "same", or what takes the place of the ReLU in front of a filter of a strided
            convolution, as it widens the spectrum less: "silu" or "softplus" (Vasconcelos et al.,
            arXiv 2011.10675). Weights stay; the network computes something else.
        include: name patterns (fnmatch: "layer[34].*") of the modules that carry the strides; only
            sites that match one of them are converted. Empty means all.
        exclude: name patterns of sites that are left alone.
        predictor: how taps are predicted: "full" (one k×k convolution, as published) or
            "separable" (k×k depthwise, then 1×1), about an eighth of the multiplications.
        predictor_input: what the predictor reads: "raw" (the filter's input, as published),
            "blurred" (that after a fixed binomial of 3 taps, at kept positions) or "pooled" (its
            mean over all positions: one filter a group for the whole image).
        taps: "bank" only: odd numbers of taps of its members, rising, such as (3, 5), in place of
            1, 3, …, kernel_size.

    Raises:
        ValueError: for an unknown or inconsistent value.
    """

    filter: str = "adaptive"
    kernel_size: int = 3
    groups: int = 8
    normalize: str = "group"
    init: str = "binomial"
    pad_mode: str = "reflect"
    max_pool: bool = True
    avg_pool: bool = True
    conv: bool = True
    shortcut: bool = True
    merging: bool = True
    stem: bool = False
    dilated: bool = False
    placement: str = "post"
    kernels: str = "any"
    activation: str = "same"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    predictor: str = "full"
    predictor_input: str = "raw"
    taps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("include", "exclude"):
            object.__setattr__(self, name, as_patterns(name, getattr(self, name)))
        check_choice("filter", self.filter, (*FILTERS, "none"))
        check_choice("normalize", self.normalize, NORMALIZATIONS)
        check_choice("init", self.init, INITS)
        check_choice("placement", self.placement, PLACEMENTS)
        check_choice("kernels", self.kernels, KERNELS)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("pad_mode", self.pad_mode, PAD_MODES)
        check_choice("predictor", self.predictor, PREDICTORS)
        check_choice("predictor_input", self.predictor_input, PREDICTOR_INPUTS)
        object.__setattr__(self, "taps", tuple(self.taps))
        if self.taps:
            check_bank(self.taps)
            if self.filter != "bank":
                bank = f"taps={self.taps} are members of a bank"
                raise ValueError(f'{bank}, not of filter={self.filter!r}: use "bank" or no taps')
        for field in fields(self):
            if field.type == "int":
                check_positive_int(field.name, getattr(self, field.name))
            if field.type == "bool" and not isinstance(getattr(self, field.name), bool):
                value = getattr(self, field.name)
                raise ValueError(f"{field.name}={value!r} must be True or False")
        if self.filter == "none" and self.activation != "same":
            raise ValueError(
                f'activation="{self.activation}" stands in front of filters, and filter="none" '
                'puts in none: use filter="trained", init="identity" for the activations alone'
            )
        if self.filter == "aps" and self.placement == "pre":
            raise ValueError('filter="aps" subsamples itself: use placement="post"')
        if self.filter == "trained":
            check_choice("init", self.init, FIXED_INITS)
        if self.filter != "aps" or self.kernel_size != 1:
            check_kernel_size(self.kernel_size, odd=self.filter in PREDICTED)
        if self.filter == "adaptive":
            check_normalization(self.normalize, self.init)

    @property
    def keeps_function(self) -> bool:
        """Whether a converted network computes at first what it did."""
        if self.filter == "none":
            return True
        starts_as_network = self.filter in LEARNED and self.init == "identity"
        return starts_as_network and self.activation == "same"

    @property
    def start(self) -> str:
        """How filters start, in words."""
        words = f'filter="{self.filter}"' + f', init="{self.init}"' * (self.filter in LEARNED)
        return words + f', activation="{self.activation}"' * (self.activation != "same")

    def to_dict(self) -> dict[str, Any]:
        """The fields as a plain dict, which `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AAConfig:
        """Build from a mapping of field names; an unknown name is a ValueError."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown AAConfig field {unknown[0]!r}: known are {', '.join(known)}")
        return cls(**values)

    @classmethod
    def of(cls, value: AAConfig | Mapping[str, Any] | None) -> AAConfig:
        """An AAConfig from itself, from a mapping of its fields, or the default from None."""
        if isinstance(value, cls):
            return value
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(
                f'aa={value!r} is neither an AAConfig nor its fields: e.g. dict(filter="blur")'
            )
        return cls.from_dict(value or {})


def as_patterns(name: str, value: object) -> tuple[str, ...]:
    """A tuple of name patterns from one pattern or a sequence of them; else a ValueError."""
    patterns = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f'{name}={value!r} must be name patterns, e.g. ("layer3.*", "*.conv2")')
    return patterns


def check_positive_int(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a positive int."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive whole number")


def check_kernel_size(kernel_size: int, odd: bool) -> None:
    """Raise ValueError unless a filter of `kernel_size` taps can be built."""
    check_positive_int("kernel_size", kernel_size)
    if not 2 <= kernel_size <= 7:
        raise ValueError(f"kernel_size={kernel_size} is out of range: choose 2 to 7 taps")
    if odd and kernel_size % 2 == 0:
        raise ValueError(
            f"kernel_size={kernel_size} is even, and a predicted filter needs a centre tap: "
            'choose 3, 5 or 7 (an even fixed blur is filter="blur")'
        )


def check_bank(taps: tuple[int, ...]) -> None:
    """Raise ValueError unless binomials of these numbers of taps make a bank."""
    if len(taps) < 2 or list(taps) != sorted(set(taps)) or any(t % 2 == 0 for t in taps):
        raise ValueError(f"taps={taps} must be two or more odd numbers, rising: e.g. (1, 3, 5)")
    if not 1 <= taps[0] <= taps[-1] <= 7:
        raise ValueError(f"taps={taps} is out of range: choose from 1, 3, 5, 7")


def check_normalization(normalize: str, init: str) -> None:
    """Raise ValueError where joint normalisation is combined with a unit-gain start."""
    if normalize == "joint" and init != "paper":
        raise ValueError(
            f'normalize="joint" scales every group by about 1/groups, so init={init!r} cannot '
            'hold: use init="paper", or normalize="group"'
        )
