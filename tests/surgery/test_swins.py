"""Swins of every framework convert, and compute what they did with the identity start."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.equivalence import relative_difference
from aa_plugins.surgery.twin import tensors_in

SMALL = dict(embed_dim=12, depths=[1, 1, 2, 1], num_heads=[1, 2, 3, 4], window_size=4)


def of_transformers(name: str, model: str):
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
    config = getattr(transformers, f"{name}Config")
    return getattr(transformers, model)(config(image_size=64, patch_size=2, **SMALL))


def of_mmseg():
    pytest.importorskip("mmseg", reason="MMSegmentation isn't installed")
    from mmseg.models import SwinTransformer

    small = {"embed_dims": 12, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 3, 4), "window_size": 4}
    return SwinTransformer(pretrain_img_size=64, patch_size=2, strides=(2, 2, 2, 2), **small)


def of_detectron2():
    pytest.importorskip("detectron2", reason="Detectron2 isn't installed")
    from detectron2.modeling.backbone.swin import SwinTransformer

    return SwinTransformer(pretrain_img_size=64, patch_size=2, **SMALL)


def of_torchvision(block: str, merging: str):
    from torchvision.models import swin_transformer as swins

    small = {**SMALL, "window_size": [4, 4], "patch_size": [2, 2], "num_classes": 5}
    kinds = {"block": getattr(swins, block), "downsample_layer": getattr(swins, merging)}
    return swins.SwinTransformer(**small, **kinds)


SWINS = {
    "transformers Swin": lambda: of_transformers("Swin", "SwinModel"),
    "transformers SwinV2": lambda: of_transformers("Swinv2", "Swinv2Model"),
    "transformers MaskFormer-Swin": lambda: of_transformers(
        "MaskFormerSwin", "MaskFormerSwinModel"
    ),
    "MMSegmentation": of_mmseg,
    "Detectron2": of_detectron2,
    "torchvision": lambda: of_torchvision("SwinTransformerBlock", "PatchMerging"),
    "torchvision V2": lambda: of_torchvision("SwinTransformerBlockV2", "PatchMergingV2"),
}


@pytest.mark.parametrize("name", SWINS)
def test_every_merging_is_converted_and_exact(name):
    torch.manual_seed(0)
    plain = SWINS[name]()
    plain.eval()  # not chained: MMSegmentation's returns nothing
    example = torch.randn(2, 3, 64, 64)
    for parameter in plain.parameters():
        if parameter.ndim <= 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    model = copy.deepcopy(plain)
    report = antialias(model, AAConfig(init="identity"), example=example)
    assert [site.kind for site in report.sites] == ["merging"] * 3
    assert set(plain.state_dict()) < set(model.state_dict())
    with torch.no_grad():
        found, expected = ([leaf for _, leaf in tensors_in(m(example))] for m in (model, plain))
    assert relative_difference(found, expected) < 1e-4
