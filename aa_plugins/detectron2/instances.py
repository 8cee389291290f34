"""A detector of Detectron2 as it is stabilized: instances in images, and its losses on given
ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import BitMasks, Boxes
from detectron2.structures import Instances as Detectron2Instances
from detectron2.utils.events import EventStorage
from torch import nn

from aa_plugins.training.instances import Instances
from aa_plugins.training.modes import giving_losses


class InstancesOf(nn.Module):
    """A GeneralizedRCNN, RetinaNet or FCOS; see :class:`aa_plugins.training.instances.Detector`.

    Args:
        network: as Detectron2 builds it; images have its order of channels and its range.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> list[Instances]:
        """Instances in images (N, 3, h, w)."""
        return [_found(one["instances"]) for one in self.network(_inputs(images))]

    def losses(self, images: torch.Tensor, targets: Sequence[Instances]) -> torch.Tensor:
        """The sum of the network's losses, norms and dropout left in their mode."""
        inputs = _inputs(images)
        for one, target in zip(inputs, targets, strict=True):
            one["instances"] = _truth(target, images.shape[-2:])
        # Heads log there what they sample.
        with EventStorage(), giving_losses(self.network):
            return sum(self.network(inputs).values())


def _inputs(images: torch.Tensor) -> list[dict]:
    height, width = images.shape[-2:]
    return [{"image": image, "height": height, "width": width} for image in images]


def _found(found: Detectron2Instances) -> Instances:
    masks = found.pred_masks if found.has("pred_masks") else None
    return Instances(found.pred_boxes.tensor, found.scores, found.pred_classes, masks)


def _truth(target: Instances, size: tuple[int, int]) -> Detectron2Instances:
    truth = Detectron2Instances(tuple(size))
    truth.gt_boxes, truth.gt_classes = Boxes(target.boxes), target.labels
    if target.masks is not None:
        truth.gt_masks = BitMasks(target.masks)
    return truth
