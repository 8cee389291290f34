"""A detector of Detectron2 as it is stabilized: instances in images, and its losses on given
ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from detectron2.structures import BitMasks, Boxes, ImageList
from detectron2.structures import Instances as Detectron2Instances
from detectron2.utils.events import EventStorage
from torch import nn

from aa_plugins.training.heads import Answers
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


class TwoStageOf(InstancesOf):
    """A GeneralizedRCNN with StandardROIHeads, see :class:`aa_plugins.training.heads.TwoStage`."""

    def features(self, images: torch.Tensor) -> tuple[ImageList, dict[str, torch.Tensor]]:
        prepared = self.network.preprocess_image(_inputs(images))
        return prepared, self.network.backbone(prepared.tensor)

    def proposals(self, features: tuple[ImageList, dict[str, torch.Tensor]]) -> list[torch.Tensor]:
        found, _ = self.network.proposal_generator(*features, None)
        return [one.proposal_boxes.tensor for one in found]

    def objectness(self, features: tuple[ImageList, dict[str, torch.Tensor]]) -> torch.Tensor:
        generator = self.network.proposal_generator
        logits, _ = generator.rpn_head([features[1][name] for name in generator.in_features])
        return torch.cat([level.flatten(1) for level in logits], 1)

    def answers(
        self,
        features: tuple[ImageList, dict[str, torch.Tensor]],
        boxes: Sequence[torch.Tensor],
    ) -> Answers:
        heads, maps = self.network.roi_heads, features[1]
        rows = [Boxes(one) for one in boxes]
        pooled = heads.box_pooler([maps[name] for name in heads.box_in_features], rows)
        scores, corrections = heads.box_predictor(heads.box_head(pooled))
        masks = None
        if heads.mask_on:
            pooled = heads.mask_pooler([maps[name] for name in heads.mask_in_features], rows)
            masks = heads.mask_head.layers(pooled)
        return Answers(scores, corrections.unflatten(1, (-1, 4)), masks)


def trainable(network: nn.Module) -> InstancesOf:
    """A detector as it is stabilized: by its heads where it has those that can be asked."""
    proposes = isinstance(getattr(network, "proposal_generator", None), RPN)
    standard = proposes and has_standard_heads(network)
    return TwoStageOf(network) if standard else InstancesOf(network)


def has_standard_heads(network: nn.Module) -> bool:
    """Whether a detector has one head for boxes, and for masks none or one that gives logits: no
    cascade, and no points."""
    heads = getattr(network, "roi_heads", None)
    if not isinstance(heads, StandardROIHeads) or isinstance(heads, CascadeROIHeads):
        return False
    plain = isinstance(getattr(heads, "mask_head", None), BaseMaskRCNNHead)
    return not heads.mask_on or (plain and heads.mask_pooler is not None)


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
