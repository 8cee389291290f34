"""A behaviour mixed into a module that exists already: its class is exchanged in place.

References to the module, its parameters and their names stay as they are, and so do its hooks.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn


class InPlace(nn.Module):
    """Base of every behaviour that `mix_in` adds; makes the mixed module copyable and picklable."""

    def __reduce_ex__(self, protocol: int) -> tuple[Any, ...]:
        mixins, original = [], type(self)
        while issubclass(original, InPlace):
            mixin, original = original.__bases__
            mixins.insert(0, mixin)
        return _rebuild, (original, *mixins), self.__dict__.copy()


def mix_in(module: nn.Module, mixin: type[InPlace]) -> None:
    """Let `module` be a `mixin` too; its methods come before the module's own."""
    module.__class__ = _mixed(mixin, type(module))


@cache
def _mixed(mixin: type[InPlace], original: type[nn.Module]) -> type[nn.Module]:
    return type(f"{mixin.__name__}{original.__name__}", (mixin, original), {})


def _rebuild(original: type[nn.Module], *mixins: type[InPlace]) -> nn.Module:
    cls = original
    for mixin in mixins:
        cls = _mixed(mixin, cls)
    return cls.__new__(cls)
