"""The fixed blur and the binomial start equal networks with blurs put in by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from aa_plugins import AAConfig, AdaptiveBlurPool2d, antialias
from aa_plugins.diagnostics.equivalence import perturb, relative_difference

SMALL_SWIN = {"img_size": 64, "embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
TAPS = {
    3: torch.tensor([1.0, 2.0, 1.0]) / 4,
    5: torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16,
}


def blur(x: torch.Tensor, k: int, stride: int = 2) -> torch.Tensor:
    """(N, C, H, W) filtered by the binomial of k taps, every stride-th row and column kept."""
    kernel = torch.outer(TAPS[k], TAPS[k]).expand(x.shape[1], 1, k, k)
    padded = F.pad(x, (k // 2,) * 4, mode="reflect")
    return F.conv2d(padded, kernel, groups=x.shape[1])[:, :, ::stride, ::stride]


def blur_input(module: nn.Module, k: int, stride: int = 2) -> None:
    module.register_forward_pre_hook(lambda _, args: (blur(args[0], k, stride),))


def blur_output(module: nn.Module, k: int, stride: int = 2) -> None:
    module.register_forward_hook(lambda _, args, output: blur(output, k, stride))


def resnet_by_hand(model: nn.Module, k: int) -> None:
    model.maxpool.stride = 1
    blur_output(model.maxpool, k)
    for layer in (model.layer2, model.layer3, model.layer4):
        block = layer[0]
        bottleneck = hasattr(block, "conv3")
        strided, reader = (block.conv2, block.conv3) if bottleneck else (block.conv1, block.conv2)
        strided.stride = (1, 1)
        blur_input(reader, k)
        first = block.downsample[0]
        if isinstance(first, nn.AvgPool2d):  # resnet50d, on even maps
            block.downsample[0] = nn.AvgPool2d(2, 1)
            blur_output(block.downsample[0], k)
        else:
            first.stride = (1, 1)
            blur_input(first, k)


def convnext_by_hand(model: nn.Module, k: int) -> None:
    for stage in model.stages[1:]:
        stage.downsample[1].stride = (1, 1)
        blur_output(stage.downsample[1], k)


def merge_by_hand(merging: nn.Module, k: int, norm_first: bool) -> Callable:
    def forward(x: torch.Tensor) -> torch.Tensor:
        corners = [x[:, :-1, :-1], x[:, 1:, :-1], x[:, :-1, 1:], x[:, 1:, 1:]]
        x = torch.cat(corners, -1)
        if norm_first:
            x = merging.reduction(merging.norm(x))
        else:
            x = merging.norm(merging.reduction(x))
        return blur(x.permute(0, 3, 1, 2), k).permute(0, 2, 3, 1)

    return forward


def swin_by_hand(model: nn.Module, k: int) -> None:
    for stage in model.layers[1:]:
        stage.downsample.forward = merge_by_hand(stage.downsample, k, norm_first=True)


def swin_v2_by_hand(model: nn.Module, k: int) -> None:
    for stage in model.layers[1:]:
        stage.downsample.forward = merge_by_hand(stage.downsample, k, norm_first=False)


def swin_v2_cr_by_hand(model: nn.Module, k: int) -> None:
    for stage in model.stages[1:]:
        stage.downsample.forward = merge_by_hand(stage.downsample, k, norm_first=True)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize(
    ("name", "by_hand", "kwargs"),
    [
        ("resnet18", resnet_by_hand, {}),
        ("resnet26", resnet_by_hand, {}),
        ("resnet26d", resnet_by_hand, {}),
        ("convnext_atto", convnext_by_hand, {}),
        ("convnextv2_atto", convnext_by_hand, {}),
        ("swin_tiny_patch4_window7_224", swin_by_hand, SMALL_SWIN),
        ("swinv2_tiny_window8_256", swin_v2_by_hand, SMALL_SWIN),
        ("swinv2_cr_tiny_224", swin_v2_cr_by_hand, SMALL_SWIN),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_equals_blurs_put_in_by_hand(name, by_hand, kwargs, k):
    plain = timm.create_model(name, **kwargs)
    perturb(plain, torch.randn(2, 3, 64, 64))
    manual = copy.deepcopy(plain)
    by_hand(manual, k)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = [manual(x)]
        assert relative_difference([plain(x)], expected) > 0.01
        for options in ({"filter": "blur"}, {"init": "binomial"}):
            converted = copy.deepcopy(plain)
            antialias(converted, AAConfig(kernel_size=k, **options))
            assert relative_difference([converted(x)], expected) < 1e-5


def test_filters_that_were_followed_on_fake_tensors_filter_real_ones():
    """Nothing that the search for sites made stays behind in filters that were there before."""
    model = timm.create_model("resnet10t", aa_layer=AdaptiveBlurPool2d).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = model(x)
    antialias(model, {"init": "identity", "max_pool": True})
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
