import logging

import pytest

pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")

import torch
from mmengine.model import convert_sync_batchnorm
from mmseg.models.backbones import ResNet, ResNetV1c, ResNetV1d
from mmseg.registry import MODELS
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.config import FILTERS, LEARNED
from aa_plugins.layers import filters_of
from aa_plugins.mmseg import AAResNet, AAResNetV1c, AATIMMBackbone
from aa_plugins.surgery import filter_keys

THIN = {"base_channels": 16, "stem_channels": 16}
DEEPLAB = {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4), "contract_dilation": True}
IDENTITY = {"init": "identity", "groups": 4, "dilated": True}


def waken(model: nn.Module, x: torch.Tensor) -> None:
    """Draw norms and biases anew and calibrate BatchNorm, so that nothing hides behind zeros."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.data.normal_(1.0 if "weight" in name else 0.0, 0.2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    model.train()
    with torch.no_grad():
        model(x)
    model.eval()


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("plain, converted", [(ResNet, AAResNet), (ResNetV1c, AAResNetV1c)])
@pytest.mark.parametrize("stages", [{}, DEEPLAB], ids=["os32", "os8"])
def test_identity_computes_what_mmseg_computes(depth, plain, converted, stages):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 75, 97, dtype=torch.float64)
    reference = plain(depth=depth, **THIN, **stages).double()
    waken(reference, x)
    model = converted(depth=depth, **THIN, **stages, aa=IDENTITY).double().eval()
    missing, unexpected = model.load_state_dict(reference.state_dict(), strict=False)
    assert not unexpected
    added = {key for key in filter_keys(model) if not key.endswith("num_batches_tracked")}
    assert set(missing) == added != set()
    with torch.no_grad():
        for ours, theirs in zip(model(x), reference(x), strict=True):
            assert theirs.std() > 0
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.max()))


def test_blur_changes_the_network():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    reference = ResNetV1c(depth=18, **THIN)
    waken(reference, x)
    model = AAResNetV1c(depth=18, **THIN, aa={"filter": "blur"}).eval()
    model.load_state_dict(reference.state_dict())
    with torch.no_grad():
        assert (model(x)[-1] - reference(x)[-1]).norm() > 0.05 * reference(x)[-1].norm()


@pytest.mark.parametrize("filter", FILTERS)
def test_every_filter_runs_and_trains_in_mmsegs_resnet(filter):
    aa = {"filter": filter}
    if filter == "aps":  # which refuses networks whose shortcuts lower resolution
        with pytest.raises(ValueError, match="shortcut layer2.0.downsample.0"):
            AAResNetV1c(depth=18, **THIN, aa=aa)
        return
    model = AAResNetV1c(depth=18, **THIN, aa=aa).train()
    model.init_weights()
    sum(level.square().mean() for level in model(torch.randn(2, 3, 65, 49))).backward()
    for name, layer in filters_of(model):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters()), name
    assert bool(list(filters_of(model))) == (filter in LEARNED)


def test_avg_down_is_converted_too():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 61, 83, dtype=torch.float64)
    reference = ResNetV1d(depth=50, **THIN).double()
    waken(reference, x)
    with torch.no_grad():
        expected = [level.clone() for level in reference(x)]
        antialias(reference, AAConfig(**IDENTITY))
        for ours, theirs in zip(reference(x), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.max()))


def test_deeplab_sites_are_named():
    model = AAResNetV1c(depth=50, **THIN, **DEEPLAB, aa={"dilated": True})
    sites = [(site.name, site.kind, site.stride) for site in model.aa_report.sites]
    assert sites == [
        ("maxpool", "max_pool", 2),
        ("layer2.0.conv2", "conv", 2),
        ("layer2.0.downsample.0", "shortcut", 2),
        ("layer3.0.conv2", "dilated", 1),
        ("layer3.0.downsample.0", "dilated", 1),
        ("layer4.0.conv2", "dilated", 1),
        ("layer4.0.downsample.0", "dilated", 1),
    ]


def test_init_weights_leaves_the_filters_at_their_start():
    model = AAResNetV1c(depth=18, **THIN)
    model.init_weights()
    for _, layer in filters_of(model):
        x = torch.randn(1, layer.channels, 6, 6)
        taps = layer.eval().predict(x)
        binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
        expected = (binomial[:, None] * binomial).flatten()
        torch.testing.assert_close(taps[0, 0, :, 0, 0], expected)


def test_init_weights_keeps_filters_from_a_checkpoint(tmp_path):
    trained = AAResNetV1c(depth=18, **THIN)
    for parameter in trained.parameters():
        parameter.data.normal_()
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    checkpoint = {"type": "Pretrained", "checkpoint": str(tmp_path / "trained.pth")}
    model = AAResNetV1c(depth=18, **THIN, init_cfg=checkpoint)
    model.init_weights()
    for key, value in trained.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value)


def test_frozen_stages_and_norm_eval_spare_the_filters():
    model = AAResNet(depth=18, **THIN, frozen_stages=2, norm_eval=True)
    model.train()
    assert not model.layer2[0].conv1.weight.requires_grad
    assert not model.layer2[0].norm1.training
    for _, layer in filters_of(model):
        assert all(parameter.requires_grad for parameter in layer.parameters())
        assert layer.norm.training
    model.eval()
    assert not any(layer.norm.training for _, layer in filters_of(model))


@pytest.mark.parametrize(
    "name, channels",
    [
        ("resnet18", [64, 64, 128, 256, 512]),
        ("convnext_atto", [40, 80, 160, 320]),
        ("swin_tiny_patch4_window7_224", [96, 192, 384, 768]),
    ],
)
def test_timm_backbone_gives_nchw_levels(name, channels):
    options = {"strict_img_size": False} if name.startswith("swin") else {}
    model = MODELS.build(dict(type="AATIMMBackbone", model_name=name, **options)).eval()
    assert isinstance(model, AATIMMBackbone)
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 64, 96))
    assert [m.shape[1] for m in maps] == channels == model.channels
    strides = [64 // m.shape[2] for m in maps]
    assert strides == [96 // m.shape[3] for m in maps]
    assert strides[-1] == 32


def test_the_report_is_logged(caplog):
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO):
        AAResNet(depth=18, **THIN)
    logger.removeHandler(caplog.handler)
    assert "layer2.0.conv1" in caplog.text


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "efficientnet_lite0"])
def test_synchronised_norms_lose_no_filter_silently(name):
    """mmengine's `sync_bn="torch"` rebuilds every norm; of these models some host a filter."""
    model = MODELS.build(dict(type="AATIMMBackbone", model_name=name, aa=dict(stem=True))).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(x)
    converted = convert_sync_batchnorm(model, "torch").eval()
    try:
        with torch.no_grad():
            after = converted(x)
    except (RuntimeError, TypeError, ValueError) as error:
        assert "antialias" in str(error)
    else:
        for ours, theirs in zip(after, before, strict=True):
            torch.testing.assert_close(ours, theirs)
