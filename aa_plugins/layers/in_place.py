"""A behaviour mixed into a module that exists already: its class is exchanged in place.

References to the module, its parameters and their names stay as they are, and so do its hooks.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn
from torch.nn.utils import parametrize


class InPlace(nn.Module):
    """Base of every behaviour that `mix_in` adds; makes the mixed module copyable and picklable."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise TypeError(
            f"{type(self).__name__} is what antialias() made of a module, and can't be built: "
            "what builds modules of a network's classes (LoRA, quantization, a clone) goes before "
            "antialias()"
        )

    def __reduce_ex__(self, protocol: int) -> tuple[Any, ...]:
        mixins, original = [], type(self)
        while original in _PARTS:
            mixin, original = _PARTS[original]
            mixins.insert(0, mixin)
        if issubclass(original, InPlace):  # a tool made a class of ours its base
            return super().__reduce_ex__(protocol)
        return _rebuild, (original, *mixins), self.__dict__.copy()


# What each mixed class was made of.
_PARTS: dict[type[nn.Module], tuple[type[InPlace], type[nn.Module]]] = {}


def mix_in(module: nn.Module, mixin: type[InPlace]) -> None:
    """Let `module` be a `mixin` too; its methods come before the module's own."""
    cls = type(module)
    if parametrize.is_parametrized(module) and cls not in _PARTS:
        # torch goes back to the first base when parametrizations are removed.
        own = {key: v for key, v in vars(cls).items() if key not in ("__dict__", "__weakref__")}
        module.__class__ = type(cls.__name__, (_mixed(mixin, cls.__bases__[0]),), own)
    else:
        module.__class__ = _mixed(mixin, cls)


@cache
def _mixed(mixin: type[InPlace], original: type[nn.Module]) -> type[nn.Module]:
    mixed = type(f"{mixin.__name__}{original.__name__}", (mixin, original), {})
    _PARTS[mixed] = mixin, original
    return mixed


def _rebuild(original: type[nn.Module], *mixins: type[InPlace]) -> nn.Module:
    cls = original
    for mixin in mixins:
        cls = _mixed(mixin, cls)
    return cls.__new__(cls)
