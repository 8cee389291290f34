"""The rule for any strided convolution or pool."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from aa_plugins.layers import strided
from aa_plugins.layers.strided import stride_of
from aa_plugins.surgery.attention import Attentions
from aa_plugins.surgery.places import after_nonlinearity
from aa_plugins.surgery.rows import BLURS, Names, Site, Skipped
from aa_plugins.surgery.trace import Call, Trace

KINDS = ((nn.Conv2d, "conv"), (nn.MaxPool2d, "max_pool"), (nn.AvgPool2d, "avg_pool"))
# A wider stride, run densely, costs more than the rest of the network.
WIDEST_STRIDE = 4

# Modules that cut the image into windows without a strided convolution.
NO_OVERLAP = "patch embedding: its windows don't overlap"


def generic_sites(names: Names, trace: Trace) -> Iterator[Site | Skipped]:
    """Any strided convolution or pool: dense, then the filter, after the nonlinearity if it can."""
    modules = {name: module for module, name in names.items()}
    attentions = Attentions(names, trace)
    for module, name in names.items():
        kind = kind_of(module)
        if kind is None or _is_around(BLURS, name, modules):
            continue
        if kind == "conv" and _reads_image(name, trace):
            kind = "stem"
        reason = trace.why_not_once(name) or _why_not(name, kind, modules, trace, attentions)
        if reason is not None:
            yield Skipped(name, kind, reason)
        elif isinstance(module, nn.Conv2d):
            yield _conv_site(name, kind, modules, trace)
        else:
            channels = trace.calls[name][0].output_shapes[0][-3]
            yield Site(name, kind, channels, stride_of(module), name, _pool_mixin(module))


def kind_of(module: nn.Module) -> str | None:
    """What a module is that carries a stride or blurs, or None."""
    if BLURS.fullmatch(type(module).__name__):
        return "blur"
    kind = next((kind for cls, kind in KINDS if isinstance(module, cls)), None)
    stride = 1 if kind is None else module.stride
    return kind if (stride if isinstance(stride, int) else max(stride)) > 1 else None


def _why_not(
    name: str, kind: str, modules: dict[str, nn.Module], trace: Trace, attentions: Attentions
) -> str | None:
    """Why a module that lowers resolution must not be touched, or None."""
    module, call = modules[name], trace.calls[name][0]
    if kind == "blur":
        return "blurs already"
    attention = attentions.served_by(call.outputs, _scope(call))
    if attention is not None:
        return f"inside {attention}: reduces queries, keys or values"
    stride = (module.stride,) if isinstance(module.stride, int) else tuple(module.stride)
    if min(stride) != max(stride):
        return f"stride {stride} differs between the axes"
    if kind == "stem" and 1 < max(module.kernel_size) <= max(stride):
        return NO_OVERLAP
    if isinstance(module, nn.Conv2d) and max(stride) > WIDEST_STRIDE:
        return f"at stride 1 it would cost {max(stride) ** 2} times as much"
    if not isinstance(module, nn.Conv2d) and call.output_shapes[0][-2:] == (1, 1):
        return f"gives one position of {'×'.join(map(str, call.input_shapes[0][-2:]))}"
    if getattr(module, "return_indices", False):
        return "returns indices of its own positions"
    return None


def _is_around(classes: re.Pattern[str], name: str, modules: dict[str, nn.Module]) -> bool:
    """Whether a module is inside one of `classes`."""
    while "." in name:
        name = name.rpartition(".")[0]
        if name in modules and classes.fullmatch(type(modules[name]).__name__):
            return True
    return False


def _scope(call: Call) -> list[Call]:
    """The calls around one, outermost first."""
    scope: list[Call] = []
    while call.parent is not None:
        call = call.parent
        scope.insert(0, call)
    return scope


def _reads_image(name: str, trace: Trace) -> bool:
    """Whether a convolution reads as many channels as the network does."""
    calls = trace.calls.get(name)
    return bool(calls) and calls[0].input_shapes[0][-3] == trace.channels


def _conv_site(name: str, kind: str, modules: dict[str, nn.Module], trace: Trace) -> Site:
    conv = modules[name]
    stride = stride_of(conv)
    if max(conv.kernel_size) == 1 and not any(conv.padding):
        kind = kind if kind == "stem" else "shortcut"
        return Site(name, kind, conv.in_channels, stride, name, strided.FilterBefore)
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
