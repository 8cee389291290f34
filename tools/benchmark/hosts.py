"""Networks of the hosts, plain, with an input each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def deeplab(device: str) -> tuple[nn.Module, torch.Tensor]:
    """MMSegmentation's DeepLabv3+ R-101 and one image of 512×1024."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    import aa_plugins.mmseg  # noqa: F401  only registration

    init_default_scope("mmseg")
    cfg = Config.fromfile(CONFIGS / "mmseg" / "deeplabv3plus_r101_cityscapes_baseline.py")
    model = MODELS.build(cfg.model).to(device).eval()
    return model, torch.randn(1, 3, 512, 1024, device=device)


def mask_rcnn(device: str) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Detectron2's Mask R-CNN R-101-FPN and one image of 832×1088."""
    from detectron2 import model_zoo
    from detectron2.modeling import build_model

    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml")
    cfg.MODEL.DEVICE = device
    torch.manual_seed(0)
    image = 255 * torch.rand(3, 832, 1088)
    return build_model(cfg).eval(), [{"image": image}]
