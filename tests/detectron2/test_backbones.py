"""Backbones: function kept at init="identity", names kept, one filter where one is promised."""

import copy

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone
from detectron2.modeling.backbone import BasicStem, ResNet

from aa_plugins import AAConfig, antialias
from aa_plugins.detectron2 import AALastLevelMaxPool, TIMMBackbone, antialias_backbone
from aa_plugins.detectron2.config import load_yaml
from aa_plugins.detectron2.freezing import unfreeze_filters
from aa_plugins.layers import filters_of
from tests.detectron2.shared import (
    CONFIGS,
    calibrate,
    parameters_of_filters,
    relative,
    scramble,
)

COCO = str(CONFIGS / "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_adaptive.yaml")
ODD = (203, 317)
C4 = "MODEL.BACKBONE.NAME build_aa_resnet_backbone MODEL.RESNETS.OUT_FEATURES ['res4']".split()
DC5 = (
    "MODEL.BACKBONE.NAME build_aa_resnet_backbone MODEL.RESNETS.OUT_FEATURES ['res5'] "
    "MODEL.RESNETS.RES5_DILATION 2 MODEL.AA.DILATED True"
).split()
TORCHVISION = ["MODEL.RESNETS.STRIDE_IN_1X1", "False"]
R101 = ["MODEL.RESNETS.DEPTH", "101"]
X101 = "MODEL.RESNETS.NUM_GROUPS 32 MODEL.RESNETS.WIDTH_PER_GROUP 8".split()  # its blocks


def backbone(*options):
    return build_backbone(load_yaml(COCO, ["MODEL.RESNETS.NORM", "BN", *options]))


def pair(*options):
    """A plain bottom-up network and its twin with init="identity", with the same weights."""
    plain = backbone(*options, "MODEL.AA.FILTER", "none")
    twin = backbone(*options, "MODEL.AA.INIT", "identity", "MODEL.BACKBONE.FREEZE_AT", "0")
    scramble(plain)
    bottom_ups = [getattr(model, "bottom_up", model) for model in (plain, twin)]
    calibrate(bottom_ups[0], torch.randn(1, 3, *ODD))
    keys = bottom_ups[1].load_state_dict(bottom_ups[0].state_dict(), strict=False)
    assert not keys.unexpected_keys
    assert set(keys.missing_keys) == parameters_of_filters(bottom_ups[1]) != set()
    return bottom_ups[0].eval(), bottom_ups[1].eval()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="R50-FPN-msra"),
        pytest.param(TORCHVISION, id="R50-FPN-torchvision"),
        pytest.param([*TORCHVISION, *DC5, "MODEL.AA.STEM", "True"], id="R50-DC5-stem"),
        pytest.param(R101, id="R101-FPN"),
        pytest.param([*R101, *C4], id="R101-C4"),
        pytest.param([*R101, *DC5], id="R101-DC5", marks=pytest.mark.slow),
        pytest.param([*TORCHVISION, *X101], id="X50-FPN", marks=pytest.mark.slow),
    ],
)
def test_identity_keeps_a_resnets_function_on_odd_maps(options):
    # In double precision: convolutions round differently at stride 1 and 2, and in single precision
    # 50 layers with perturbed norms make 1.0e-5 to 1.9e-5 of that.
    plain, twin = (model.double() for model in pair(*options))
    image = torch.randn(1, 3, *ODD, dtype=torch.float64)
    with torch.no_grad():
        expected, found = plain(image), twin(image)
        moved = twin(image.roll(1, -1))
    for name, values in expected.items():
        assert relative(values, found[name]) < 1e-9
        assert relative(found[name], moved[name]) > 1e-2


@pytest.mark.parametrize(
    "name",
    ["convnext_atto", "convnext_tiny", "swin_tiny_patch4_window7_224"],
)
def test_identity_keeps_a_timm_backbones_function_on_odd_maps(name):
    plain = TIMMBackbone(name, {"filter": "none"})
    twin = TIMMBackbone(name, {"init": "identity"})
    scramble(plain)
    keys = twin.load_state_dict(plain.state_dict(), strict=False)
    assert set(keys.missing_keys) == parameters_of_filters(twin) and not keys.unexpected_keys
    plain.eval(), twin.eval()
    image = torch.randn(1, 3, *ODD)
    with torch.no_grad():
        expected, found = plain(image), twin(image)
    assert list(found) == ["res2", "res3", "res4", "res5"]
    for stage, shape in plain.output_shape().items():
        assert relative(expected[stage], found[stage]) < 1e-5
        assert found[stage].shape[1] == shape.channels


def test_msra_style_filters_a_blocks_input_once():
    model = backbone(
        "MODEL.RESNETS.OUT_FEATURES",
        "['res2', 'res3']",
        "MODEL.FPN.IN_FEATURES",
        "['res2', 'res3']",
    ).bottom_up.eval()
    block, calls, read = model.res3[0], [], []
    block.prefilter.register_forward_hook(lambda *_: calls.append(1))
    for conv in (block.conv1, block.shortcut):
        assert conv.stride == (1, 1)
        conv.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    assert calls == [1] and read[0] is read[1]
    assert [name for name, _ in filters_of(model.res3)] == ["0.prefilter"]


def test_dilated_sites_only_on_request():
    names = {
        dilated: [n for n, _ in filters_of(backbone(*DC5[:-1], dilated).res5)]
        for dilated in ("True", "False")
    }
    assert names == {"True": ["0.shortcut.prefilter", "0.conv3.prefilter"], "False": []}


def test_c4_filters_its_last_stage_in_the_roi_head():
    from detectron2.modeling import build_model

    options = "MODEL.ROI_HEADS.NAME AARes5ROIHeads MODEL.ROI_HEADS.IN_FEATURES ['res4'] "
    options += "MODEL.RPN.IN_FEATURES ['res4'] MODEL.ANCHOR_GENERATOR.SIZES [[64]] "
    options += "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION 14 MODEL.ROI_MASK_HEAD.NUM_CONV 0"
    cfg = load_yaml(COCO, [*C4, "MODEL.RESNETS.NORM", "BN", *_split(options)])
    model = build_model(cfg)
    assert [name for name, _ in filters_of(model.roi_heads)] == ["res5.0.prefilter"]
    with torch.no_grad():
        assert model.roi_heads.res5(torch.randn(2, 1024, 14, 14)).shape == (2, 2048, 7, 7)


def _split(options):
    """KEY VALUE pairs, in which values may hold no space."""
    return options.split()


def test_deformable_blocks_keep_offsets_beside_their_convolution():
    from detectron2.modeling.backbone.resnet import DeformBottleneckBlock

    blocks = ResNet.make_stage(
        DeformBottleneckBlock,
        2,
        in_channels=16,
        out_channels=32,
        bottleneck_channels=16,
        stride_per_block=[2, 1],
        norm="BN",
    )
    plain = torch.nn.Sequential(*blocks).eval()
    twin = copy.deepcopy(plain)
    image = torch.randn(1, 16, 31, 45)
    report = antialias(twin, AAConfig(init="identity"), example=image)
    assert [site.name for site in report.sites] == ["0.shortcut", "0.conv2"]
    with torch.no_grad():
        assert relative(plain(image), twin(image)) < 1e-5


@pytest.mark.parametrize("aa", [{"filter": "none"}, {"filter": "blur"}, {"init": "identity"}])
@pytest.mark.parametrize("size", [(7, 9), (8, 10), (1, 1)])
def test_p6_has_the_plain_size(aa, size):
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool

    x = torch.randn(2, 16, *size)
    pool = AALastLevelMaxPool(16, aa).eval()
    (expected,), (found,) = LastLevelMaxPool()(x), pool(x)
    assert found.shape == expected.shape
    if aa != {"filter": "blur"}:
        assert torch.allclose(expected, found, atol=1e-6)


@pytest.mark.parametrize("filter", ["trained", "flc"])
def test_other_filters_run_and_train_in_a_pyramid(filter):
    model = backbone("MODEL.AA.FILTER", filter, "MODEL.BACKBONE.FREEZE_AT", "5").train()
    unfreeze_filters(model)
    sum(level.square().mean() for level in model(torch.randn(1, 3, 64, 96)).values()).backward()
    taps = [layer.change.grad for _, layer in filters_of(model)]
    assert len(taps) == (4 if filter == "trained" else 0)
    assert all(grad is not None and grad.abs().max() > 0 for grad in taps)


def test_p6_of_one_pixel_trains_on_one_image():
    pool = AALastLevelMaxPool(16, {}).train()
    (found,) = pool(torch.randn(1, 16, 2, 2, requires_grad=True))
    found.sum().backward()
    assert found.shape[-2:] == (1, 1) and pool.filter.conv.weight.grad is not None


def test_p6_option_of_the_pyramid():
    assert backbone("MODEL.AA.P6", "True").top_block.filter is not None
    assert list(filters_of(backbone().top_block)) == []


def test_lazy_callable_equals_the_builder():
    made = instantiate(
        L(antialias_backbone)(
            backbone=L(ResNet)(
                stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
                stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN"),
                out_features=["res2", "res3", "res4", "res5"],
                freeze_at=2,
            ),
            aa=dict(filter="adaptive"),
        )
    )
    built = build_backbone(load_yaml(COCO)).bottom_up
    assert made.state_dict().keys() == built.state_dict().keys()
    assert all(p.requires_grad for _, layer in filters_of(made) for p in layer.parameters())
    assert isinstance(made.stem.conv1.norm, FrozenBatchNorm2d)


def test_builders_are_registered():
    for name in ("resnet", "resnet_fpn", "timm", "timm_fpn"):
        assert f"build_aa_{name}_backbone" in BACKBONE_REGISTRY


def test_timm_pyramid_from_a_config_file():
    options = ["MODEL.BACKBONE.NAME", "build_aa_timm_fpn_backbone", "MODEL.BACKBONE.FREEZE_AT", "2"]
    cfg = load_yaml(COCO, [*options, "MODEL.TIMM.NAME", "resnet18", "MODEL.AA.P6", "True"])
    model = build_backbone(cfg, ShapeSpec(channels=3))
    network = model.bottom_up.network
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 64, 96))
    assert {name: tuple(m.shape[-2:]) for name, m in maps.items()} == {
        "p2": (16, 24),
        "p3": (8, 12),
        "p4": (4, 6),
        "p5": (2, 3),
        "p6": (1, 2),
    }
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {
        name
        for name, _ in network.named_parameters()
        if name.startswith(("conv1", "bn1", "layer1")) and "filter" not in name
    }
    assert type(network.bn1).__name__.startswith("FrozenBatchNorm")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vit_tiny_patch16_224"}, r"has maps at strides \[16\], choose from res4"),
        ({"name": "resnet18", "out_features": ["res6"]}, "choose from res1, res2, res3"),
        ({"name": "resnet18", "out_features": []}, "choose from res1"),
    ],
)
def test_unusable_timm_networks_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        TIMMBackbone(**arguments)
