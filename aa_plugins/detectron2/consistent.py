"""A detector that is trained to be shift consistent beside its task."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from aa_plugins.detectron2.instances import has_standard_heads
from aa_plugins.detectron2.stride import total_stride
from aa_plugins.evaluation.views import Box
from aa_plugins.training.loss import divergence
from aa_plugins.training.views import drawn_offsets, moved_views

LEAST_SIDE = 2.0  # pixels; what a view leaves smaller of an object isn't one


@META_ARCH_REGISTRY.register()
class ConsistentRCNN(GeneralizedRCNN):
    """Detectron2's GeneralizedRCNN, trained on two moved views of every image: its own losses, and
    how far what its heads say of the true boxes is from its mean over both. It predicts as ever.

    Of the boxes that both views hold whole, compared are classes (divergence in nats), corrections
    of boxes (smooth L1) and, with a mask head, pixels of masks (cross entropy less the entropy of
    the mean). A step costs twice the images. In a yaml config:
    ``MODEL.META_ARCHITECTURE: "ConsistentRCNN"``.

    Args:
        consistency: weight of the term; 0 trains on moved views alone, its control.
    """

    @configurable
    def __init__(self, *, consistency: float = 1.0, **parts: Any) -> None:
        super().__init__(**parts)
        if consistency < 0:
            raise ValueError(f"MODEL.AA.CONSISTENCY={consistency!r} must be 0 or more")
        if not has_standard_heads(self):
            raise ValueError(
                "ConsistentRCNN needs StandardROIHeads with one head each for boxes and masks, and "
                f"{type(self.roi_heads).__name__} has others: train it as GeneralizedRCNN"
            )
        self.consistency = consistency
        self.stride = total_stride(self)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        return {**super().from_config(cfg), "consistency": cfg.MODEL.AA.CONSISTENCY}

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses of images with `instances` in training mode, else what the detector finds."""
        if not self.training:
            return self.inference(batched_inputs)
        pairs = [self._views(one) for one in batched_inputs]
        inputs = [view for views in zip(*pairs) for view in views]
        images = self.preprocess_image(inputs)
        truth = [one["instances"].to(self.device) for one in inputs]
        features = self.backbone(images.tensor)
        # The heads log, and add true boxes to proposals, in place: what follows has its own.
        shared = self._shared(truth)
        proposals, losses = self.proposal_generator(images, features, truth)
        _, found = self.roi_heads(images, features, proposals, truth)
        apart = self.consistency * self._apart(features, shared)
        return {**losses, **found, "loss_consistency": apart}

    def _views(self, image: dict[str, Any]) -> list[dict[str, Any]]:
        """Two moved views of an image, which must be larger than twice the stride."""
        pixels = image["image"]
        size = tuple(side - self.stride + 1 for side in pixels.shape[-2:])
        if min(size) <= self.stride:
            raise ValueError(
                f"{image.get('file_name', 'an image')} of {tuple(pixels.shape[-2:])} pixels is too "
                f"small to move within a stride of {self.stride}: raise INPUT.MIN_SIZE_TRAIN"
            )
        moved = moved_views(size, drawn_offsets(2, self.stride))
        return [
            {**image, "image": view, "instances": _cut(image["instances"], one.crop)}
            for one, view in zip(moved.views, moved.inputs(pixels))
        ]

    def _shared(self, truth: list[Instances]) -> list[Instances]:
        """Of each view, the objects that lie whole in both views of their image, in one order."""
        half = len(truth) // 2
        kept = []
        for one, other in zip(truth[:half], truth[half:]):
            ids = set(one.object_ids[one.whole].tolist()) & set(
                other.object_ids[other.whole].tolist()
            )
            for view in (one, other):
                kept.append(
                    view[torch.tensor([i in ids for i in view.object_ids.tolist()], dtype=bool)]
                )
        return [*kept[0::2], *kept[1::2]]

    def _apart(self, features: dict[str, torch.Tensor], shared: list[Instances]) -> torch.Tensor:
        heads = self.roi_heads
        boxes = [one.gt_boxes for one in shared]
        count = sum(map(len, boxes)) // 2
        if not count:
            return 0.0 * sum(one.sum() for one in features.values())
        pooled = heads.box_pooler([features[name] for name in heads.box_in_features], boxes)
        scores, deltas = (one.float() for one in heads.box_predictor(heads.box_head(pooled)))
        average = scores.detach().softmax(1).unflatten(0, (2, count)).mean(0).repeat(2, 1)
        apart = divergence(average, scores)
        apart = apart + smooth_l1_loss(deltas, _mean(deltas, count), beta=1.0)
        if heads.mask_on:
            pooled = heads.mask_pooler([features[n] for n in heads.mask_in_features], boxes)
            masks = heads.mask_head.layers(pooled).float()
            if masks.shape[1] > 1:
                labels = torch.cat([one.gt_classes for one in shared])
                masks = masks[torch.arange(len(masks)), labels][:, None]
            average = _mean(masks.sigmoid(), count)
            entropy = binary_cross_entropy_with_logits(average.logit(eps=1e-6), average)
            apart = apart + binary_cross_entropy_with_logits(masks, average) - entropy
        return apart


def _mean(values: torch.Tensor, count: int) -> torch.Tensor:
    """The mean of both views' values, for each, without a gradient: (2 count, …)."""
    mean = values.detach().unflatten(0, (2, count)).mean(0)
    return torch.cat([mean, mean])


def _cut(instances: Instances, crop: Box) -> Instances:
    """The true instances of a view, with the number that each has in the image, and whether the
    view holds it `whole`."""
    corner = torch.tensor([crop.left, crop.top, crop.left, crop.top], dtype=torch.float32)
    boxes = Boxes(instances.gt_boxes.tensor - corner)
    before = boxes.tensor.clone()
    boxes.clip((crop.height, crop.width))
    cut = Instances((crop.height, crop.width))
    for name, value in instances.get_fields().items():
        if isinstance(value, BitMasks):
            value = BitMasks(value.tensor[(..., *crop.slices)])
        elif isinstance(value, PolygonMasks):
            value = PolygonMasks([[_moved(p, crop) for p in one] for one in value.polygons])
        cut.set(name, boxes if name == "gt_boxes" else value)
    cut.object_ids = torch.arange(len(instances))
    cut.whole = (boxes.tensor == before).all(1)
    return cut[boxes.nonempty(LEAST_SIDE)]


def _moved(polygon: Any, crop: Box) -> Any:
    moved = polygon.copy()
    moved[0::2] -= crop.left
    moved[1::2] -= crop.top
    return moved
