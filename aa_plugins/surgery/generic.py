"""The rule for any strided convolution or pool, and what no rule can reach."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn
from torch.utils._pytree import tree_leaves

from aa_plugins.layers import strided
from aa_plugins.layers.strided import pads_as_same, stride_of
from aa_plugins.surgery.rows import Names, Site, Skipped
from aa_plugins.surgery.trace import Call, Operation, Trace

BLUR = re.compile(r"(Adaptive)?BlurPool2d|FilterBankPool2d")
KINDS = ((nn.Conv2d, "conv"), (nn.MaxPool2d, "max_pool"), (nn.AvgPool2d, "avg_pool"))
# Classes whose strides reduce queries, keys or values. A split attention is a convolution, and a
# block has a shortcut beside its attention.
ATTENTION = re.compile(r"(?!SplitAttn|.*Block$).*(attention|attn|mhsa)", re.IGNORECASE)
# A wider stride, run densely, costs more than the rest of the network.
WIDEST_STRIDE = 4

# Modules that cut the image into windows without a strided convolution.
NO_OVERLAP = "patch embedding: its windows don't overlap"
PATCHES = ("Gemma4PatchEmbed", "LearnableDct2d", "NaFlexEmbeds", "SpaceToDepth")

# What acts on each pixel alone, so that subsampling may wait until after it.
POINTWISE_TYPES = (nn.modules.batchnorm._BatchNorm, nn.Identity, nn.modules.dropout._DropoutNd)
POINTWISE_NAMES = re.compile(r"Frozen(BatchNorm|BatchNormAct)2d|(Layer|Rms|Simple)Norm(Act)?2d")
ACTIVATION_FILES = ("torch.nn.modules.activation", "timm.layers.activations")
NO_ACTIVATIONS = ("Softmax", "Softmax2d", "LogSoftmax", "Softmin", "GLU", "MultiheadAttention")

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
    stride = module.stride if isinstance(module.stride, tuple) else (module.stride,)
    if min(stride) != max(stride):
        return f"stride {stride} differs between the axes"
    if kind == "stem" and max(module.kernel_size) <= max(stride):
        return NO_OVERLAP
    if isinstance(module, nn.Conv2d) and max(stride) > WIDEST_STRIDE:
        return f"at stride 1 it would cost {max(stride) ** 2} times as much"
    if not isinstance(module, nn.Conv2d) and call.output_shapes[0][-2:] == (1, 1):
        return "global pool"
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
    return bool(calls) and calls[0].input_shapes[0][1] == trace.calls[""][0].input_shapes[0][1]


def _conv_site(name: str, kind: str, modules: dict[str, nn.Module], trace: Trace) -> Site:
    conv = modules[name]
    stride = stride_of(conv)
    if max(conv.kernel_size) == 1 and not any(conv.padding):
        return Site(name, "shortcut", conv.in_channels, stride, name, strided.FilterBefore)
    host = _after_nonlinearity(trace.calls[name][0], modules, trace)
    return Site(name, kind, conv.out_channels, stride, host, strided.FilterAfter)


def _after_nonlinearity(call: Call, modules: dict[str, nn.Module], trace: Trace) -> str:
    """The last activation that alone reads what `call` computes, by way of pointwise modules.

    Where something else reads along the way, or an activation serves several places, the filter
    stays at the module itself.
    """
    host, value = call.name, call.outputs[0]
    while True:
        readers = [c for c in trace.sole_readers(value) if _is_pointwise(modules[c.name])]
        if not readers or len(readers[0].outputs) != 1:
            return host
        reader = readers[0]
        value = reader.outputs[0]
        if _is_nonlinear(modules[reader.name]) and trace.why_not_once(reader.name) is None:
            host = reader.name


def _is_pointwise(module: nn.Module) -> bool:
    name = type(module).__name__
    return (
        isinstance(module, POINTWISE_TYPES)
        or POINTWISE_NAMES.match(name) is not None
        or _is_activation(module)
    )


def _is_activation(module: nn.Module) -> bool:
    cls = type(module)
    return cls.__module__.startswith(ACTIVATION_FILES) and cls.__name__ not in NO_ACTIVATIONS


def _is_nonlinear(module: nn.Module) -> bool:
    """An activation, or a norm that ends in one (timm's `BatchNormAct2d`)."""
    return _is_activation(module) or _is_activation(getattr(module, "act", None))


def _pool_mixin(pool: nn.Module) -> type[strided.Filtered]:
    if pads_as_same(pool):
        return strided.FilterAfter
    is_max = isinstance(pool, nn.MaxPool2d)
    return strided.FilterAfterMaxPool if is_max else strided.FilterAfterAvgPool


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
