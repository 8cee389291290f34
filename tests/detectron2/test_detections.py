"""The whole Mask R-CNN keeps its function at init="identity"."""

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import torch
from detectron2.modeling import build_model
from detectron2.structures import pairwise_iou

from aa_plugins.detectron2.config import load_yaml
from tests.detectron2.shared import CONFIGS, SHAPES, TINY, calibrate, relative, scramble

COCO = str(CONFIGS / "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_adaptive.yaml")
MANY = (
    "MODEL.RPN.POST_NMS_TOPK_TEST 200 MODEL.RPN.PRE_NMS_TOPK_TEST 200 "
    "TEST.DETECTIONS_PER_IMAGE 100 MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.001"
).split()


def twins(config, *options):
    """A plain Mask R-CNN that finds much, and its converted twin with the same weights."""
    options = [*TINY, *MANY, "MODEL.RESNETS.NORM", "BN", *options]
    plain = build_model(load_yaml(config, [*options, "MODEL.AA.FILTER", "none"]))
    adaptive = ["MODEL.AA.FILTER", "adaptive", "MODEL.AA.INIT", "identity"]
    twin = build_model(load_yaml(config, [*options, *adaptive]))
    scramble(plain)
    calibrate(plain.backbone.bottom_up, 128 * torch.randn(1, 3, 192, 256))
    twin.load_state_dict(plain.state_dict(), strict=False)
    return plain.eval(), twin.eval()


@pytest.mark.parametrize(
    ("config", "options"),
    [
        pytest.param(SHAPES, [], id="R18"),
        pytest.param(COCO, [], id="R50-msra"),
        pytest.param(
            COCO,
            ["MODEL.RESNETS.STRIDE_IN_1X1", "False"],
            id="R50-torchvision",
        ),
        pytest.param(
            COCO,
            "MODEL.BACKBONE.NAME build_aa_timm_fpn_backbone MODEL.TIMM.NAME convnext_tiny".split(),
            id="convnext",
        ),
        pytest.param(
            COCO,
            "MODEL.BACKBONE.NAME build_aa_timm_fpn_backbone "
            "MODEL.TIMM.NAME swin_tiny_patch4_window7_224".split(),
            id="swin",
        ),
    ],
)
@torch.no_grad()
def test_heads_and_detections_are_the_plain_models(config, options):
    plain, twin = twins(config, *options)
    image = 128 * torch.rand(3, 192, 256)
    images = plain.preprocess_image([{"image": image}])
    features = [model.backbone(images.tensor) for model in (plain, twin)]
    proposals, _ = plain.proposal_generator(images, features[0], None)
    boxes = [p.proposal_boxes for p in proposals]
    names = plain.roi_heads.box_in_features
    outputs = []
    for model, found in zip((plain, twin), features):
        pooled = model.roi_heads.box_pooler([found[name] for name in names], boxes)
        scores, deltas = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
        masks = model.roi_heads.mask_pooler([found[name] for name in names], boxes)
        outputs.append((scores, deltas, model.roi_heads.mask_head.layers(masks)))
    for expected, values in zip(*outputs):
        assert relative(expected, values) < 1e-4
        assert expected.std() > 1e-3

    # Backbones in double precision: boxes of untrained heads tie and are slivers, so that rounding
    # alone, of convolutions at stride 1 and 2, changes which of them suppress which.
    for model in (plain, twin):
        compute_in_double(model.backbone)
    first, second = (model([{"image": image}])[0]["instances"] for model in (plain, twin))
    assert len(first) == len(second) >= 50
    iou = pairwise_iou(first.pred_boxes, second.pred_boxes)
    iou[first.pred_classes[:, None] != second.pred_classes[None]] = 0
    best = iou.argmax(1)
    assert len(set(best.tolist())) == len(first)
    assert iou.max(1).values.min() > 0.999
    assert (first.scores - second.scores[best]).abs().max() < 1e-4


def compute_in_double(backbone):
    """Compute the maps in double precision and give them in single, which suppression asks for."""
    backbone.double()
    backbone.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    backbone.register_forward_hook(lambda _, __, maps: {k: m.float() for k, m in maps.items()})
