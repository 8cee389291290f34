"""`AATIMMBackbone` takes any timm model that is converted."""

import pytest

pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")

import timm
import torch
from mmseg.registry import MODELS
from timm.layers import Format

import aa_plugins.mmseg  # noqa: F401  registers the backbones
from aa_plugins.layers import filters_of
from tests.timm.records import CONVERTED, FAMILIES, marked, usable_size


@pytest.mark.parametrize("row", marked(CONVERTED, (*FAMILIES, "pit_ti_224")))
def test_levels_of_any_model(row):
    name, size = row["model"], usable_size(row, (128, 192))
    model = MODELS.build(dict(type="AATIMMBackbone", model_name=name, aa={"stem": True}))
    plain = timm.create_model(name, features_only=True).eval()
    assert model.channels == plain.feature_info.channels()
    assert list(filters_of(model))
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = plain(x)
    if getattr(plain, "output_fmt", Format.NCHW) == Format.NHWC:
        expected = [level.permute(0, 3, 1, 2) for level in expected]
    levels = model(x)
    assert [level.shape for level in levels] == [level.shape for level in expected]
    for level, channels in zip(levels, model.channels, strict=True):
        assert level.shape[1] == channels
    sum(level.square().mean() for level in levels).backward()
    for _, layer in filters_of(model):
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
