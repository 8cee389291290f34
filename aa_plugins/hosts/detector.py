"""Detectors that take and give what torchvision's do, without the resize that they do inside."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from aa_plugins.evaluation.stride import total_stride


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
    transform = getattr(model, "transform", None)
    if not hasattr(transform, "min_size"):
        return _found(model([view]))
    resize = transform.min_size, transform.max_size, transform.fixed_size
    short, long = sorted(view.shape[-2:])
    transform.min_size, transform.max_size, transform.fixed_size = (short,), long, None
    try:
        return _found(model([view]))
    finally:
        transform.min_size, transform.max_size, transform.fixed_size = resize


def _found(output: Any) -> dict[str, Any]:
    (found,) = output
    masks = found["masks"][:, 0] > 0.5 if "masks" in found else None
    return {**found, "masks": masks}
