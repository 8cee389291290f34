"""Which step of a network flickers: how far each map is from the map that should have moved along.

Moved by d pixels, an image's maps of stride s should move by d/s positions. What they differ by
from that is flicker. Measured before and after each subsampling, it names the steps that bring it
in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from aa_plugins.diagnostics.places import Place, places
from aa_plugins.evaluation.views import fourier_shift


class Step(NamedTuple):
    """Flicker at one subsampling, image by image, the mean of both axes.

    Attributes:
        name: of the module that subsamples.
        stride: pixels of the network's input between positions of the map it makes.
        before: by shift, (N,) that of the map that is subsampled (without a filter's help).
        after: by shift, (N,) that of the map that is left.
    """

    name: str
    stride: int
    before: dict[int, torch.Tensor]
    after: dict[int, torch.Tensor]

    @property
    def brought_in(self) -> torch.Tensor:
        """(N,) what this step adds, mean over the shifts; negative where a filter takes away."""
        return torch.stack([self.after[d] - self.before[d] for d in self.after]).mean(0)


@torch.no_grad()
def flicker_by_step(
    model: nn.Module,
    images: torch.Tensor,
    shifts: Sequence[int] = (1,),
    multiple: int = 32,
    run: Callable[[torch.Tensor], Any] | None = None,
) -> list[Step]:
    """Flicker before and after every subsampling of a network, in the order they run.

    A map's flicker is |moved − expected| / |expected − mean of its channel|, Euclidean norms over
    channels and the map's interior; what is expected is the unmoved image's map, shifted by d/s
    positions (by Fourier interpolation where that is no whole number). 0 for a network that moves
    along; about √2 for maps that have nothing to do with one another.

    Args:
        model: a network, in eval mode.
        images: (N, C, H, W), in pixels of the network's input; larger than the largest shift by
            `multiple` or more.
        shifts: distances in pixels, each taken along either axis.
        multiple: crops are the largest multiple of this many pixels that leaves room.
        run: takes (1, C, H, W) to the network's forward pass; the model itself unless given.

    Raises:
        ValueError: where the images leave no room, or the model is in training mode.
    """
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    run = run or model
    room = max(shifts)
    height, width = ((size - room) // multiple * multiple for size in images.shape[-2:])
    if min(height, width) < 1:
        raise ValueError(
            f"images of {tuple(images.shape[-2:])} leave no crop of a multiple of {multiple} "
            f"pixels beside a shift of {room}: take larger images or shorter shifts"
        )
    found: dict[str, Step] = {}
    for index, image in enumerate(images.split(1)):
        with _maps(model) as reference:
            run(image[..., :height, :width])
        for shift in shifts:
            for dy, dx in ((shift, 0), (0, shift)):
                with _maps(model) as moved:
                    run(image[..., dy : dy + height, dx : dx + width])
                for name, (_, pair) in reference.items():
                    strides = [round(height / m.shape[-2]) for m in pair]
                    step = found.setdefault(name, Step(name, strides[1], {}, {}))
                    sides = zip(pair, moved[name][1], strides, (step.before, step.after))
                    for map_, after_move, stride, side in sides:
                        values = side.setdefault(shift, torch.zeros(len(images)))
                        values[index] += distance(map_, after_move, (dy / stride, dx / stride)) / 2
    return list(found.values())


def distance(map_: torch.Tensor, moved: torch.Tensor, shift: tuple[float, float]) -> float:
    """How far a map is from the one it should be, relative, in the interior.

    Args:
        map_: (N, C, H, W) of the unmoved image.
        moved: (N, C, H, W), which should show at (y, x) what `map_` shows at (y + dy, x + dx).
        shift: (dy, dx) in positions of the maps.
    """
    expected = map_.float()
    whole = [int(part // 1) for part in shift]
    fraction = tuple(part - w for part, w in zip(shift, whole))
    if any(fraction):
        expected = fourier_shift(expected, fraction)
    difference = moved.float()
    for axis, step in zip((-2, -1), whole):
        size = expected.shape[axis] - step
        expected = expected.narrow(axis, step, size)
        difference = difference.narrow(axis, 0, size)
    difference = difference - expected
    margins = [min(size // 8 + 1, (size - 1) // 2) for size in expected.shape[-2:]]
    inner = tuple(slice(m, size - m) for m, size in zip(margins, expected.shape[-2:]))
    difference, expected = difference[(..., *inner)], expected[(..., *inner)]
    expected = expected - expected.mean((-2, -1), keepdim=True)
    scale = expected.norm()
    return float(difference.norm() / scale) if scale > 0 else 0.0


@contextmanager
def _maps(model: nn.Module) -> Iterator[dict[str, tuple[Place, tuple[torch.Tensor, ...]]]]:
    """The maps before and after each subsampling of the forward pass inside, by its name."""
    found: dict[str, tuple[Place, tuple[torch.Tensor, ...]]] = {}

    def hook(place: Place):
        def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            found.setdefault(place.name, (place, (place.unfiltered(inputs[0]), output)))

        return keep

    handles = [place.module.register_forward_hook(hook(place)) for place in places(model)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
