"""Detectors that take and give what torchvision's do, without the resize that they do inside."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from aa_plugins.evaluation.stride import total_stride
from aa_plugins.training.instances import Instances
from aa_plugins.training.modes import giving_losses


def stride_of(model: nn.Module) -> int:
    """S of a detector, all maps of whose backbone are read; nothing is computed.

    Raises:
        ValueError: where it has no `backbone`, or nothing of it grows with its input.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ValueError(
            f"{type(model).__name__} has no `backbone`, so its total stride can't be measured: "
            "state it, as --protocol '{\"stride\": 64}'"
        )
    return total_stride(copy.deepcopy(backbone).to("meta"), size=1024)


def at_input(
    model: nn.Module, image: torch.Tensor, truth: dict[str, Any] | None
) -> tuple[torch.Tensor, dict[str, Any] | None]:
    """An image (3, H, W) as the network behind the detector's own resize gets it, and its truth in
    the same pixels."""
    transform = getattr(model, "transform", None)
    if not hasattr(transform, "resize"):
        return image, truth
    pixels, _ = transform.resize(image, None)
    if truth is None:
        return pixels, None
    size = pixels.shape[-2:]
    scale = torch.tensor([new / old for new, old in zip(size[::-1], image.shape[:0:-1])] * 2)
    truth = {**truth, "boxes": truth["boxes"] * scale}
    if "masks" in truth:  # objects as a batch, which may be empty, unlike channels
        masks = truth["masks"][:, None].float()
        truth["masks"] = (F.interpolate(masks, size, mode="nearest-exact")[:, 0] > 0.5).numpy()
    return pixels, truth


@torch.no_grad()
def predict(model: nn.Module, view: torch.Tensor) -> dict[str, Any]:
    """What a detector says of a view (3, H, W), which it must not resize again."""
    with _unresized(model, view.shape[-2:]):
        return _found(model([view]))


@contextmanager
def _unresized(model: nn.Module, size: Sequence[int]) -> Iterator[None]:
    """A detector that leaves images (3, h, w) of this size as they are."""
    transform = getattr(model, "transform", None)
    if not hasattr(transform, "min_size"):
        yield
        return
    resize = transform.min_size, transform.max_size, transform.fixed_size
    short, long = sorted(size)
    transform.min_size, transform.max_size, transform.fixed_size = (short,), long, None
    try:
        yield
    finally:
        transform.min_size, transform.max_size, transform.fixed_size = resize


def _found(output: Any) -> dict[str, Any]:
    (found,) = output
    masks = found["masks"][:, 0] > 0.5 if "masks" in found else None
    return {**found, "masks": masks}


class InstancesOf(nn.Module):
    """A detector that takes and gives what torchvision's do, as it is stabilized; see
    :class:`aa_plugins.training.instances.Detector`. Images have its input's size already."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> list[Instances]:
        """Instances in images (N, 3, h, w)."""
        found = (predict(self.network, image) for image in images)
        return [Instances(f["boxes"], f["scores"], f["labels"], f.get("masks")) for f in found]

    def losses(self, images: torch.Tensor, targets: Sequence[Instances]) -> torch.Tensor:
        """The sum of the network's losses, norms and dropout left in their mode."""
        truth = [{"boxes": t.boxes, "labels": t.labels} for t in targets]
        for one, target in zip(truth, targets):
            if target.masks is not None:
                one["masks"] = target.masks.to(torch.uint8)
        with _unresized(self.network, images.shape[-2:]), giving_losses(self.network):
            return sum(self.network(list(images), truth).values())
