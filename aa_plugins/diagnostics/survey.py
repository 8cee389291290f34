"""Aliasing at every subsampling of a network, over many images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from aa_plugins.diagnostics.aliasing import CLASSES, spectrum
from aa_plugins.diagnostics.places import Place, places


@dataclass
class PlaceAliasing:
    """What one subsampling does, image by image.

    Attributes:
        name: of the module that subsamples.
        filtered: whether a filter stands there.
        before: (N, 4) shares of bins by class, of the map as it would be without the filter.
        after: (N, 4), of the map whose positions are kept; the same where no filter stands.
        above_before, above_after: (N,) share of the energy above the new Nyquist limit.
    """

    name: str
    filtered: bool
    before: torch.Tensor = field(default_factory=lambda: torch.empty(0, len(CLASSES)))
    after: torch.Tensor = field(default_factory=lambda: torch.empty(0, len(CLASSES)))
    above_before: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    above_after: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def add(self, place: Place, x: torch.Tensor) -> None:
        """Take in what the place reads, (N, C, H, W)."""
        before = spectrum(place.unfiltered(x), place.stride)
        after = spectrum(place.filtered_map(x), place.stride) if place.filtered else before
        self.before = torch.cat([self.before, before.classes.cpu()])
        self.after = torch.cat([self.after, after.classes.cpu()])
        self.above_before = torch.cat([self.above_before, before.above.cpu()])
        self.above_after = torch.cat([self.above_after, after.above.cpu()])


@torch.no_grad()
def survey(
    model: nn.Module, batches: Iterable[Any], run: Callable[[Any], Any] | None = None
) -> list[PlaceAliasing]:
    """Measure every subsampling of a network on images, in the order they run.

    Maps are measured as they come by, so that one place's is held at a time.

    Args:
        model: a network, in eval mode.
        batches: of images, such as (N, C, H, W).
        run: takes a batch to the network's forward pass; the model itself unless given.

    Raises:
        ValueError: where the model is in training mode, or nothing in it subsamples by a module.
    """
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    found: dict[str, PlaceAliasing] = {}

    def hook(place: Place):
        def measure(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if place.name not in found:
                found[place.name] = PlaceAliasing(place.name, place.filtered)
            found[place.name].add(place, inputs[0])

        return measure

    handles = [place.module.register_forward_pre_hook(hook(place)) for place in places(model)]
    if not handles:
        raise ValueError(
            f"no module of {type(model).__name__} strides: its reductions, if any, are function "
            "calls, which can't be looked into"
        )
    try:
        for images in batches:
            (run or model)(images)
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())
