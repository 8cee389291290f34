"""A converted network that something has rebuilt raises, where filters or strides were lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from aa_plugins.layers import BlurPool2d, FrequencyLowCutPool2d
from aa_plugins.layers.strided import Filtered, filter_of
from aa_plugins.surgery.rows import Site

REMEDY = "convert last: rebuild, fold or wrap the plain network first, then call antialias()"


@dataclass(frozen=True)
class Place:
    """What has to stay as it is at a site; names are relative to the module that is guarded."""

    name: str
    host: str
    dense: tuple[str, ...]
    around: str
    norm: str | None

    @classmethod
    def of(cls, model: nn.Module, site: Site) -> Place:
        """The place of a site that has been converted."""
        around = type(model.get_submodule(site.host.rpartition(".")[0])).__name__
        return cls(site.name, site.host, site.lowered, around, _folding(model, site))

    def paths(self) -> list[str]:
        """Every module that is looked at."""
        return [self.name, self.host, *self.dense, *([self.norm] if self.norm else [])]

    def below(self, root: str) -> Place:
        """The same with names relative to the module called `root`."""
        start = len(root) + 1 if root else 0
        return replace(
            self,
            host=self.host[start:],
            dense=tuple(name[start:] for name in self.dense),
            norm=self.norm and self.norm[start:],
        )


class Guard:
    """A hook before a module's forward pass: ValueError where filters below it are gone."""

    def __init__(self) -> None:
        self.places: list[Place] = []

    def __call__(self, module: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling():
            return
        for place in self.places:
            lost = _lost(module, place)
            if lost is not None:
                raise ValueError(f"the anti-aliasing of {place.name} is gone: {lost}; {REMEDY}")


def guard(model: nn.Module, sites: Iterable[Site]) -> None:
    """Watch every site from `model`, and from the module just around it, which may be taken out."""
    guards: dict[str, Guard] = {}
    for site in sites:
        place = Place.of(model, site)
        for root in {"", _around(place.paths())}:
            if root not in guards:
                guards[root] = Guard()
                model.get_submodule(root).register_forward_pre_hook(guards[root])
            guards[root].places.append(place.below(root))


def _lost(root: nn.Module, place: Place) -> str | None:
    """What is missing at a place, in words; None where all of it is there, or all of it went."""
    dense = [_reach(root, name) for name in place.dense]
    dense = [module for module in dense if not isinstance(module, (nn.Identity, type(None)))]
    if not dense and place.dense:
        return None
    for module in dense:
        stride = getattr(module, "stride", 1)
        if (stride if isinstance(stride, int) else max(stride)) > 1:
            return f"{type(module).__name__} has a stride of its own again"
    host = _reach(root, place.host)
    if not isinstance(host, Filtered) or filter_of(host) is None:
        return f"{place.host or type(root).__name__} was exchanged"
    parent, _, attribute = place.host.rpartition(".")
    if parent and not _still_calls(_reach(root, parent), attribute, place.around):
        return f"{parent} was exchanged by a {type(_reach(root, parent)).__name__}"
    if place.norm and isinstance(_reach(root, place.norm), (nn.Identity, type(None))):
        return f"{place.norm}, which followed the filter, was folded into what comes before it"
    return None


def _folding(model: nn.Module, site: Site) -> str | None:
    """The norm that must not be folded into the convolution, between which the filter sits.

    A fixed filter of gain 1 commutes with a norm, but for a border of zeros.
    """
    layer = filter_of(model.get_submodule(site.host))
    fixed = isinstance(layer, (BlurPool2d, FrequencyLowCutPool2d))
    commutes = fixed and layer.pad_mode != "zeros"
    return None if commutes else site.norm


def _still_calls(parent: nn.Module | None, attribute: str, around: str) -> bool:
    """Whether a module that may have been rebuilt still runs its child."""
    if parent is None or any(cls.__name__ == around for cls in type(parent).__mro__):
        return True
    if attribute not in parent._modules:  # a wrapper, which passes attributes on
        return True
    return attribute in type(parent).forward.__code__.co_names


def _around(paths: list[str]) -> str:
    """Name of the innermost module that holds all of them and is none of them."""
    parts = [path.split(".")[:-1] for path in paths]
    shared = []
    for names in zip(*parts):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)


def _reach(root: nn.Module, path: str) -> Any:
    for name in path.split(".") if path else ():
        root = getattr(root, name, None)
    return root
