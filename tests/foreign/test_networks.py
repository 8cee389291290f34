"""Networks that others wrote: each is converted exactly, or left alone with the reason."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.equivalence import relative_difference
from aa_plugins.surgery.follow import follow
from aa_plugins.surgery.twin import tensors_in

pytestmark = pytest.mark.slow

IDENTITY = AAConfig(init="identity", stem=True)
SIZE = (96, 128)
# Kinds of transformers' vision networks: configuration, model, and what makes it small.
TRANSFORMERS = {
    "BeitModel": dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=64),
    "BitModel": dict(hidden_sizes=[16, 32, 32, 64], depths=[1, 1, 1, 1], embedding_size=16),
    "ConvNextModel": dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "ConvNextV2Model": dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "CvtModel": dict(embed_dim=[8, 16, 24], num_heads=[1, 2, 3], depth=[1, 1, 1]),
    "DinatModel": dict(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]),
    "EfficientNetModel": dict(width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320),
    "FocalNetModel": dict(embed_dim=12, depths=[1, 1, 1, 1], image_size=64),
    "GLPNModel": dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "HieraModel": dict(
        embed_dim=12, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], image_size=[64, 64]
    ),
    "LevitModel": dict(hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 1]),
    "MobileNetV1Model": dict(depth_multiplier=0.25),
    "MobileNetV2Model": dict(depth_multiplier=0.35),
    "MobileViTModel": dict(
        hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 16, 24, 32, 40, 48, 64]
    ),
    "MobileViTV2Model": dict(width_multiplier=0.5),
    "PoolFormerModel": dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "PvtModel": dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], image_size=64),
    "PvtV2Model": dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "RegNetModel": dict(hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], groups_width=16),
    "ResNetModel": dict(hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], embedding_size=16),
    "SegformerModel": dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "SwiftFormerModel": dict(embed_dims=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "SwinModel": dict(embed_dim=12, depths=[1, 1, 1, 1], num_heads=[1, 2, 3, 4], window_size=4),
    "Swinv2Model": dict(embed_dim=12, depths=[1, 1, 1, 1], num_heads=[1, 2, 3, 4], window_size=4),
    "TimesformerModel": dict(hidden_size=24, num_hidden_layers=1, num_attention_heads=2),
    "VanModel": dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "ViTModel": dict(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=64),
    "YolosModel": dict(hidden_size=24, num_hidden_layers=1, num_attention_heads=2),
}
MMSEG = {
    "ResNet": dict(depth=18),
    "ResNetV1c": dict(depth=50, dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1)),
    "ResNetV1d": dict(depth=18),
    "ResNeXt": dict(depth=50, groups=8, base_width=4),
    "ResNeSt": dict(depth=50),
    "HRNet": None,
    "MobileNetV2": dict(),
    "MobileNetV3": dict(),
    "UNet": dict(base_channels=8),
    "SwinTransformer": dict(embed_dims=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4)),
    "MixVisionTransformer": dict(embed_dims=8, num_layers=[1, 1, 1, 1]),
    "PCPVT": dict(embed_dims=[8, 16, 24, 32], num_heads=[1, 2, 3, 4], depths=[1, 1, 1, 1]),
    "SVT": dict(embed_dims=[8, 16, 24, 32], num_heads=[1, 2, 3, 4], depths=[1, 1, 1, 1]),
    "STDCNet": dict(
        stdc_type="STDCNet1",
        in_channels=3,
        channels=(8, 16, 32, 64, 128),
        bottleneck_type="cat",
        norm_cfg=dict(type="BN"),
        act_cfg=dict(type="ReLU"),
    ),
    "BiSeNetV1": dict(backbone_cfg=dict(type="ResNet", depth=18)),
    "BiSeNetV2": dict(),
    "FastSCNN": dict(),
    "CGNet": dict(),
    "ERFNet": dict(),
    "ICNet": dict(
        backbone_cfg=dict(type="ResNetV1c", depth=18, dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1)),
        layer_channels=(128, 512),
    ),
    "DDRNet": dict(),
    "PIDNet": dict(),
    "MSCAN": dict(embed_dims=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "VPD": None,
    "VisionTransformer": dict(img_size=SIZE, embed_dims=24, num_layers=1, num_heads=2),
    "TIMMBackbone": dict(model_name="resnet18", pretrained=False),
}

# Networks of which nothing can be converted, and why; any other has at least three places, but for
# those that subsample in attention.
PATCHES = "patch embedding"
PADDED_BY_STRIDE = "dense version"
UNCONVERTED = {
    **dict.fromkeys(["BeitModel", "ViTModel", "YolosModel", "TimesformerModel"], PATCHES),
    **dict.fromkeys(["VisionTransformer"], PATCHES),
    **dict.fromkeys(["vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"], PATCHES),
    **dict.fromkeys(["MobileNetV1Model", "MobileNetV2Model", "MobileNetV3"], PADDED_BY_STRIDE),
}
FEW = {"HieraModel": 1}


def check(name: str, model: nn.Module, example: torch.Tensor) -> None:
    """Convert a copy and compare all outputs.

    Every vector parameter is drawn, so that no norm or bias hides what stands before it.
    """
    model.eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1 and parameter.is_floating_point() and parameter.numel():
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
    converted = copy.deepcopy(model)
    report = antialias(converted, IDENTITY, example=example, dry_run=True)
    assert all(row.reason for row in report.skipped)
    if name in UNCONVERTED:
        assert not report.sites and any(UNCONVERTED[name] in row.reason for row in report.skipped)
        return
    assert len(report.sites) >= FEW.get(name, 3), str(report)
    antialias(converted, IDENTITY, example=example)
    found, expected = (outputs(network, example) for network in (converted, model))
    assert relative_difference(found, expected) < 1e-3


def outputs(model: nn.Module, example: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        found = [leaf for _, leaf in tensors_in(model(example)) if leaf.is_floating_point()]
    return [leaf for leaf in found if leaf.numel() and leaf.abs().max() > 0]


def quietly(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        return build()


def smp_encoders() -> list[str]:
    with contextlib.suppress(ImportError):
        import segmentation_models_pytorch as smp

        return sorted(smp.encoders.encoders)
    return []


@pytest.mark.parametrize("name", smp_encoders() or ["none"])
def test_encoders_of_segmentation_models_pytorch(name):
    smp = pytest.importorskip(
        "segmentation_models_pytorch", reason="segmentation_models_pytorch isn't installed"
    )
    try:
        encoder = quietly(lambda: smp.encoders.get_encoder(name, weights=None))
    except Exception as error:  # what the package can't build here isn't ours to convert
        pytest.skip(f"it isn't built: {str(error).splitlines()[0]}")
    example = torch.randn(1, 3, *(SIZE if not name.startswith("mit") else (128, 128)))
    check(name, encoder, example)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_networks_of_transformers(name):
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
    try:
        config = getattr(transformers, name.replace("Model", "Config"))(**TRANSFORMERS[name])
        model = quietly(lambda: getattr(transformers, name)(config))
        size = getattr(config, "image_size", None) or SIZE
        size = (size, size) if isinstance(size, int) else tuple(size)
        size = SIZE if min(size) > 128 else size
        example = torch.randn(1, 3, *size)
        model.eval()(example)
    except Exception as error:
        pytest.skip(f"it doesn't run so small: {type(error).__name__}: {str(error)[:100]}")
    check(name, model, example)


def torchvision_names(module: str) -> list[str]:
    from torchvision import models

    return models.list_models(module=getattr(models, module, models) if module else models)


@pytest.mark.parametrize("name", torchvision_names(""))
def test_classifiers_of_torchvision(name):
    from torchvision import models

    model = quietly(lambda: models.get_model(name, weights=None))
    square = name.startswith(("vit", "maxvit", "inception"))
    check(name, model, torch.randn(1, 3, *((224, 224) if square else SIZE)))


@pytest.mark.parametrize("name", torchvision_names("segmentation"))
def test_segmentors_of_torchvision(name):
    from torchvision import models

    off = dict(weights=None, weights_backbone=None)
    model = quietly(lambda: models.get_model(name, **off))
    check(name, model, torch.randn(1, 3, *SIZE))


@pytest.mark.parametrize("name", torchvision_names("detection"))
def test_detectors_of_torchvision(name):
    """Whole, or its backbone where the whole can't be followed; it still gives what it gave."""
    from torchvision import models

    off = dict(weights=None, weights_backbone=None)
    model = quietly(lambda: models.get_model(name, **off)).eval()
    converted = copy.deepcopy(model)
    report = antialias(converted, IDENTITY)
    assert report.sites and all(site.name.startswith("backbone.") for site in report.sites)
    image = torch.rand(3, *((300, 300) if name == "ssd300_vgg16" else SIZE))
    with torch.no_grad():
        features = [list(m.backbone(image[None]).values()) for m in (converted, model)]
    assert relative_difference(*features) < 1e-3


@pytest.mark.parametrize("name", MMSEG)
def test_backbones_of_mmseg(name):
    pytest.importorskip("mmseg", reason="MMSegmentation isn't installed")
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope("mmseg")
    if MMSEG[name] is None:
        pytest.skip("it has no default configuration")
    try:
        model = quietly(lambda: MODELS.build(dict(type=name, **MMSEG[name])))
        model.eval()
        example = torch.randn(1, 3, *SIZE)
        model(example)
    except Exception as error:
        pytest.skip(f"it doesn't run so small: {type(error).__name__}: {str(error)[:100]}")
    check(name, model, example)


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo11n-seg.yaml"])
def test_networks_of_ultralytics(name):
    pytest.importorskip("ultralytics", reason="ultralytics isn't installed")
    from ultralytics.nn.tasks import DetectionModel, SegmentationModel

    kind = SegmentationModel if "seg" in name else DetectionModel
    model = quietly(lambda: kind(name, verbose=False))
    check(name, model, torch.randn(1, 3, *SIZE))


def test_a_network_that_only_cuts_patches_is_left_alone_with_the_reason():
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
    config = transformers.ViTConfig(**TRANSFORMERS["ViTModel"])
    model = transformers.ViTModel(config)
    with pytest.raises(ValueError, match="patch embedding"):
        antialias(model, IDENTITY, example=torch.randn(1, 3, 64, 64))
    assert follow(model, torch.randn(1, 3, 64, 64)).trace.calls
