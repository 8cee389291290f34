"""Whole detectors convert: the part that can be followed, which the report names."""

from __future__ import annotations

import copy

import pytest
import torch

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.equivalence import relative_difference

IDENTITY = AAConfig(init="identity", stem=True)
SIZE = (96, 128)


@pytest.mark.parametrize(
    "config",
    [
        "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
        pytest.param("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", marks=pytest.mark.slow),
        pytest.param("COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml", marks=pytest.mark.slow),
        pytest.param("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml", marks=pytest.mark.slow),
    ],
)
def test_detectors_of_detectron2(config):
    pytest.importorskip("detectron2", reason="Detectron2 isn't installed")
    from detectron2 import model_zoo
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file(config))
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", "cpu"
    torch.manual_seed(0)
    plain = build_model(cfg).eval()
    model = copy.deepcopy(plain)
    report = antialias(model, IDENTITY)
    names = {site.name.rpartition("backbone.")[2] for site in report.sites}
    assert any("only backbone" in note for note in report.notes)
    assert any(name.endswith("stem.conv1") for name in names), "the stem's convolution"
    x = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        found, expected = (list(m.backbone(x).values()) for m in (model, plain))
        assert relative_difference(found, expected) < 1e-5
        image = {"image": 255 * torch.rand(3, *SIZE), "height": SIZE[0], "width": SIZE[1]}
        assert len(model([image])) == 1
