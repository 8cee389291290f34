"""What `make demo` measures where Detectron2 isn't installed: torchvision's Mask R-CNN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from aa_plugins.datasets.coco import CocoImages
from aa_plugins.evaluation.protocol import Protocol, grid_shifts
from aa_plugins.surgery import antialias
from aa_plugins.torchvision.detection import measure, train

FILTERS = {"baseline": "none", "blur": "blur", "adaptive": "adaptive"}
# Small enough for a CPU: 32 RoIs an image in training, 20 detections in testing.
SMALL = {
    "min_size": 128,
    "rpn_pre_nms_top_n_train": 200,
    "rpn_post_nms_top_n_train": 100,
    "rpn_pre_nms_top_n_test": 200,
    "rpn_post_nms_top_n_test": 100,
    "box_batch_size_per_image": 32,
    "box_detections_per_img": 20,
}
PROTOCOL = Protocol(stride=64, shifts=grid_shifts((1, 4)), controls=False)


def run(data: Path, out: Path, iterations: int) -> dict[str, list[dict[str, Any]]]:
    """Train each variant from one seed and measure it; records by the name of the variant.

    Args:
        data: the shapes in COCO's layout.
        out: where records go.
        iterations: of training, each.
    """
    splits = [CocoImages(data / f"instances_{s}.json", data / s) for s in ("train", "val")]
    found = {}
    for name, filter_name in FILTERS.items():
        torch.manual_seed(0)
        backbone = resnet_fpn_backbone(
            backbone_name="resnet18",
            weights=None,
            norm_layer=nn.BatchNorm2d,
            trainable_layers=5,
        )
        model = MaskRCNN(backbone, splits[0].num_classes, **SMALL)
        antialias(model.backbone, {"filter": filter_name})
        train(model, splits[0], iterations)
        found[name] = measure(model, splits[1], PROTOCOL, out / name)
    return found
