"""A merging that is dense and then subsampled computes what it did, whatever it takes and gives."""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn

from aa_plugins.layers.merging import FilterAfterMerging
from aa_plugins.layers.strided import convert
from aa_plugins.layers.subsample import Subsample

# Where each family's merging is, and the arguments that build it for 6 channels.
MAPS = {
    "timm.models.swin_transformer:PatchMerging": (6,),
    "timm.models.swin_transformer_v2:PatchMerging": (6,),
    "timm.models.swin_transformer_v2_cr:PatchMerging": (6,),
    "torchvision.models.swin_transformer:PatchMerging": (6,),
    "torchvision.models.swin_transformer:PatchMergingV2": (6,),
}
TOKENS = {
    "transformers.models.swin.modeling_swin:SwinPatchMerging": (6,),
    "transformers.models.swinv2.modeling_swinv2:Swinv2PatchMerging": ((8, 8), 6),
    "transformers.models.maskformer.modeling_maskformer_swin:MaskFormerSwinPatchMerging": (6,),
    "mmseg.models.utils.embed:PatchMerging": (6, 12),
    "detectron2.modeling.backbone.swin:PatchMerging": (6,),
}
SIZES = [(8, 8), (7, 10), (1, 5), (1, 1), (2, 3)]


def pair(place: str, arguments: tuple[Any, ...]) -> tuple[nn.Module, nn.Module]:
    """A merging with random weights, and the same, dense and subsampled."""
    module, name = place.split(":")
    try:
        merging = getattr(import_module(module), name)(*arguments)
    except ImportError:
        pytest.skip(f"{module.partition('.')[0]} isn't installed")
    for parameter in merging.parameters():
        nn.init.normal_(parameter)
    converted = copy.deepcopy(merging)
    convert(converted, FilterAfterMerging, Subsample(2))
    return merging, converted


@pytest.mark.parametrize("place", MAPS)
@pytest.mark.parametrize("size", SIZES)
def test_maps(place, size):
    merging, converted = pair(place, MAPS[place])
    x = torch.randn(2, *size, 6)
    torch.testing.assert_close(converted(x), merging(x))


@pytest.mark.parametrize("place", TOKENS)
@pytest.mark.parametrize("size", SIZES)
def test_tokens_with_their_size(place, size):
    merging, converted = pair(place, TOKENS[place])
    x = torch.randn(2, size[0] * size[1], 6)
    arguments = size if place.startswith("detectron2") else (size,)
    expected, found = merging(x, *arguments), converted(x, *arguments)
    assert type(found) is type(expected)
    torch.testing.assert_close(found, expected)


def test_the_size_may_come_by_name():
    merging, converted = pair("mmseg.models.utils.embed:PatchMerging", (6, 12))
    x = torch.randn(2, 35, 6)
    found, size = converted(x, input_size=torch.Size([5, 7]))
    assert size == (3, 4)
    torch.testing.assert_close(found, merging(x, (5, 7))[0])


def test_it_is_dense_before_the_filter():
    merging, _ = pair("timm.models.swin_transformer:PatchMerging", (4,))
    convert(merging, FilterAfterMerging, Subsample(1))
    x = torch.randn(1, 6, 8, 4)
    parts = [x[:, :-1, :-1], x[:, 1:, :-1], x[:, :-1, 1:], x[:, 1:, 1:]]
    expected = merging.reduction(merging.norm(torch.cat(parts, -1)))
    torch.testing.assert_close(merging(x), expected)
