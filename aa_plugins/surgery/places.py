"""Where the filter of a convolution sits: after the nonlinearity, in a module that is its own.

Tools that exchange norms (synchronised, frozen) rebuild a norm that ends in an activation, but
keep the activation, which therefore holds the filter.
"""

from __future__ import annotations

import re

from torch import nn

from aa_plugins.surgery.trace import Call, Trace

Modules = dict[str, nn.Module]

# What acts on each pixel alone, so that subsampling may wait until after it.
POINTWISE_TYPES = (nn.modules.batchnorm._BatchNorm, nn.Identity, nn.modules.dropout._DropoutNd)
POINTWISE_NAMES = re.compile(r"Frozen(BatchNorm|BatchNormAct)2d|(Layer|Rms|Simple)Norm(Act)?2d")
ACTIVATION_FILES = ("torch.nn.modules.activation", "timm.layers.activations")
NO_ACTIVATIONS = ("Softmax", "Softmax2d", "LogSoftmax", "Softmin", "GLU", "MultiheadAttention")


def after_nonlinearity(name: str, modules: Modules, trace: Trace) -> str:
    """The last activation that alone reads what `name` computes, by way of pointwise modules.

    Where something else reads along the way, the filter stays at the module itself. An activation
    without state that serves several places is named as this place's own: `own` makes it so.
    """
    calls = trace.calls[name]
    hosts = {_host_of(call, len(calls), modules, trace) for call in calls}
    return hosts.pop() if len(hosts) == 1 else name


def norm_after(name: str, modules: Modules, trace: Trace) -> str | None:
    """The norm with running statistics, if any, that reads what `name` computes."""
    for value in trace.calls[name][0].outputs:
        for call in trace.takers(value):
            if getattr(modules[call.name], "running_mean", None) is not None:
                return call.name
    return None


def calls_at(path: str, modules: Modules, trace: Trace) -> list[Call]:
    """The calls of the module at a path: of one without state that serves several places, those
    that this place makes."""
    parent, _, attribute = path.rpartition(".")
    module = modules[path] if path in modules else modules[parent]._modules[attribute]
    name = next(name for name, other in modules.items() if other is module)
    calls = trace.calls.get(name, [])
    here = [call for call in calls if call.parent is not None and call.parent.name == parent]
    return here if here and _is_stateless(module) else calls


def own(model: nn.Module, name: str) -> None:
    """Give the place `name` a module of its own in place of one without state.

    Such a module may serve other places, too, even other networks: Ultralytics' activation belongs
    to the class of its blocks.
    """
    module = model.get_submodule(name)
    if not name or not _is_stateless(module):
        return
    parent, _, attribute = name.rpartition(".")
    twin = object.__new__(type(module))
    vars(twin).update({k: v.copy() if isinstance(v, dict) else v for k, v in vars(module).items()})
    setattr(model.get_submodule(parent), attribute, twin)


def _host_of(call: Call, times: int, modules: Modules, trace: Trace) -> str:
    host, value = call.name, call.outputs[0]
    while True:
        readers = [c for c in trace.sole_readers(value) if _is_pointwise(modules[c.name])]
        if not readers or len(readers[0].outputs) != 1:
            return host
        reader = readers[0]
        value = reader.outputs[0]
        if _is_nonlinear(modules[reader.name]):
            host = own_path(_innermost(reader, modules, trace), times, modules, trace) or host


def _innermost(reader: Call, modules: Modules, trace: Trace) -> Call:
    """The call of the activation in which a norm ends, else the call itself."""
    for name, calls in trace.calls.items():
        if modules.get(name) is getattr(modules[reader.name], "act", reader):
            for call in calls:
                if call.parent is reader and call.outputs == reader.outputs:
                    return call
    return reader


def own_path(call: Call, times: int, modules: Modules, trace: Trace) -> str | None:
    """The path by which its parent alone calls a module, once each time and `times` in all."""
    module, parent, calls = modules[call.name], call.parent, trace.calls[call.name]
    if parent is None:
        return None
    here = [c for c in calls if c.parent is not None and c.parent.name == parent.name]
    if len(here) != len(trace.calls[parent.name]) or len(here) != times:
        return None
    if len(here) == len(calls):
        return call.name
    attributes = [a for a, child in modules[parent.name]._modules.items() if child is module]
    if len(attributes) != 1 or not _is_stateless(module):
        return None
    return f"{parent.name}.{attributes[0]}" if parent.name else attributes[0]


def _is_stateless(module: nn.Module) -> bool:
    return not (module._parameters or module._buffers or module._modules)


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
