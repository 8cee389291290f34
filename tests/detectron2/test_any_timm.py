"""`build_aa_timm_fpn_backbone` takes any timm model that is converted."""

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import timm
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from aa_plugins.detectron2.config import load_yaml
from aa_plugins.detectron2.timm_backbone import STRIDES
from aa_plugins.layers import filters_of
from tests.detectron2.shared import SHAPES
from tests.timm.records import CONVERTED, FAMILIES, marked, usable_size

FAST = (
    *FAMILIES,
    "ghostnet_050",  # gives maps between a convolution and its norm
    "shvit_s1",  # strides 16, 32 and 64
)
# No pyramid fits: patches of 7 pixels; 224 pixels only, which a stride of 64 doesn't divide; maps
# of convolutions without padding, which don't double.
NO_PYRAMID = (
    "sequencer2d_s",
    "levit_128s",
    "pit_ti_224",
    "inception_resnet_v2",
    "inception_v3",
    "inception_v4",
    "legacy_xception",
    "nasnetalarge",
    "pnasnet5large",
)


@pytest.mark.parametrize(
    "row", marked([row for row in CONVERTED if row["model"] not in NO_PYRAMID], FAST)
)
def test_a_pyramid_on_any_model(row):
    name, size = row["model"], usable_size(row, (128, 192))
    levels = [level for level, stride in STRIDES.items() if stride in row["strides"]]
    maps = f"MODEL.TIMM.OUT_FEATURES {levels} MODEL.FPN.IN_FEATURES {levels}".replace(", ", ",")
    cfg = load_yaml(
        SHAPES,
        [
            *("MODEL.BACKBONE.NAME", "build_aa_timm_fpn_backbone", "MODEL.TIMM.NAME", name),
            *("MODEL.BACKBONE.FREEZE_AT", "0", "MODEL.AA.FILTER", "adaptive", *maps.split()),
            *("MODEL.FPN.OUT_CHANNELS", "8", "MODEL.AA.STEM", "True"),
        ],
    )
    model = build_backbone(cfg, ShapeSpec(channels=3))
    assert list(filters_of(model.bottom_up.network))
    stages, info = model.bottom_up.output_shape(), timm.create_model(name).feature_info
    assert list(stages) == levels
    pyramid = model(torch.randn(2, 3, *size))
    for level, shape in stages.items():
        assert shape.stride == STRIDES[level]
        assert shape.channels in {r["num_chs"] for r in info if r["reduction"] == shape.stride}
        found = pyramid[level.replace("res", "p")]
        assert tuple(found.shape[:2]) == (2, 8)
        assert all(abs(n / shape.stride - m) <= 1 for n, m in zip(size, found.shape[2:]))
    sum(level.square().mean() for level in pyramid.values()).backward()
    for _, layer in filters_of(model.bottom_up):
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
