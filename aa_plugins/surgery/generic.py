"""The rule for any strided convolution or pool, and what no rule can reach."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn
from torch.utils._pytree import tree_leaves

from aa_plugins.layers import strided
from aa_plugins.layers.strided import stride_of
from aa_plugins.surgery.places import after_nonlinearity
from aa_plugins.surgery.rows import BLURS, Names, Site, Skipped
from aa_plugins.surgery.trace import Operation, Trace

BLUR = re.compile("|".join(BLURS))
KINDS = ((nn.Conv2d, "conv"), (nn.MaxPool2d, "max_pool"), (nn.AvgPool2d, "avg_pool"))
# Classes whose strides reduce queries, keys or values. A split attention is a convolution, and a
# block has a shortcut beside its attention.
ATTENTION = re.compile(r"(?!SplitAttn|.*Block$).*(attention|attn|mhsa)", re.IGNORECASE)
# A wider stride, run densely, costs more than the rest of the network.
WIDEST_STRIDE = 4

# Modules that cut the image into windows without a strided convolution.
NO_OVERLAP = "patch embedding: its windows don't overlap"
PATCHES = ("Gemma4PatchEmbed", "LearnableDct2d", "NaFlexEmbeds", "SpaceToDepth")

# Functions that lower the resolution of (N, C, H, W) or (N, C, L) maps.
REDUCING = re.compile(r"conv[12]d|(adaptive_)?(max|avg)_pool[12]d|interpolate|pixel_unshuffle")


def generic_sites(names: Names, trace: Trace) -> Iterator[Site | Skipped]:
    """Any strided convolution or pool: dense, then the filter, after the nonlinearity if it can."""
    modules = {name: module for module, name in names.items()}
    for module, name in names.items():
        kind = _kind(module)
        if kind is None or _around(name, modules, BLUR):
            continue
        if kind == "conv" and _reads_image(name, trace):
            kind = "stem"
        reason = trace.why_not_once(name) or _why_not(name, kind, modules, trace)
        if reason is not None:
            yield Skipped(name, kind, reason)
        elif isinstance(module, nn.Conv2d):
            yield _conv_site(name, kind, modules, trace)
        else:
            channels = trace.calls[name][0].output_shapes[0][-3]
            yield Site(name, kind, channels, stride_of(module), name, _pool_mixin(module))


def out_of_reach(names: Names, trace: Trace) -> Iterator[Skipped]:
    """Reductions that a forward pass computes by a function call: no module carries the stride."""
    modules = {name: module for module, name in names.items()}
    for operation in trace.operations:
        name = operation.scope[-1].name if operation.scope else ""
        if name in modules and _kind(modules[name]) is None and _reduces(operation):
            reason = f"{operation.function} called in the forward of {type(modules[name]).__name__}"
            attention = _around(f"{name}.", modules, ATTENTION)
            reason = f"inside {attention}: {reason}" if attention else reason
            yield Skipped(name, "function", reason)
    for module, name in names.items():
        if type(module).__name__ in PATCHES:
            yield Skipped(name, "stem", NO_OVERLAP)


def _kind(module: nn.Module) -> str | None:
    """What a module is that carries a stride or blurs, or None."""
    if BLUR.fullmatch(type(module).__name__):
        return "blur"
    stride = getattr(module, "stride", 1)
    if (stride if isinstance(stride, int) else max(stride)) == 1:
        return None
    return next((kind for cls, kind in KINDS if isinstance(module, cls)), None)


def _why_not(name: str, kind: str, modules: dict[str, nn.Module], trace: Trace) -> str | None:
    """Why a module that lowers resolution must not be touched, or None."""
    module, call = modules[name], trace.calls[name][0]
    if kind == "blur":
        return "blurs already"
    attention = _around(name, modules, ATTENTION)
    if attention is not None:
        return f"inside {attention}: reduces queries, keys or values"
    stride = (module.stride,) if isinstance(module.stride, int) else tuple(module.stride)
    if min(stride) != max(stride):
        return f"stride {stride} differs between the axes"
    if kind == "stem" and max(module.kernel_size) <= max(stride):
        return NO_OVERLAP
    if isinstance(module, nn.Conv2d) and max(stride) > WIDEST_STRIDE:
        return f"at stride 1 it would cost {max(stride) ** 2} times as much"
    if not isinstance(module, nn.Conv2d) and call.output_shapes[0][-2:] == (1, 1):
        return "global pool"
    if getattr(module, "return_indices", False):
        return "returns indices of its own positions"
    return None


def _around(name: str, modules: dict[str, nn.Module], classes: re.Pattern[str]) -> str | None:
    """The class of the innermost module around `name` that is one of `classes`, or None."""
    while "." in name:
        name = name.rpartition(".")[0]
        cls = type(modules[name]).__name__
        if classes.match(cls):
            return cls
    return None


def _reads_image(name: str, trace: Trace) -> bool:
    """Whether a convolution reads as many channels as the network does."""
    calls = trace.calls.get(name)
    return bool(calls) and calls[0].input_shapes[0][-3] == trace.channels


def _conv_site(name: str, kind: str, modules: dict[str, nn.Module], trace: Trace) -> Site:
    conv = modules[name]
    stride = stride_of(conv)
    if max(conv.kernel_size) == 1 and not any(conv.padding):
        return Site(name, "shortcut", conv.in_channels, stride, name, strided.FilterBefore)
    host = after_nonlinearity(name, modules, trace)
    return Site(name, kind, conv.out_channels, stride, host, strided.FilterAfter)


def _pool_mixin(pool: nn.Module) -> type[strided.Filtered]:
    """How a pool is converted: one with a forward of its own keeps that, at stride 1."""
    for cls, mixin in (
        (nn.MaxPool2d, strided.FilterAfterMaxPool),
        (nn.AvgPool2d, strided.FilterAfterAvgPool),
    ):
        if type(pool).forward is cls.forward and "forward" not in vars(pool):
            return mixin
    return strided.FilterAfter


def _reduces(operation: Operation) -> bool:
    """Whether a function call keeps fewer positions than it reads, but more than one."""
    if not operation.input_shapes:
        return False
    before, after = operation.input_shapes[0], operation.output_shapes[0]
    if operation.function == "__getitem__":  # x[:, ::2, ::2]
        slices = [s for s in tree_leaves(operation.arguments) if isinstance(s, slice)]
        return sum((s.step or 1) > 1 for s in slices) >= 2
    if not REDUCING.fullmatch(operation.function) or not len(before) == len(after) in (3, 4):
        return False
    kept = [new / old for new, old in zip(after[2:], before[2:])]
    return max(kept) < 0.75 and any(size > 1 for size in after[2:])
