"""Aliasing at every place of small networks."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.aliasing import spectrum
from aa_plugins.diagnostics.survey import survey


def test_the_map_that_is_measured_is_the_one_that_is_subsampled():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3, 2, 1)
    model = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(3, 2, 1)).eval()
    images = torch.randn(4, 3, 32, 48)
    first, second = survey(model, images.split(3))
    with torch.no_grad():
        dense = nn.functional.conv2d(images, conv.weight, conv.bias, 1, 1)
        expected = spectrum(dense, 2)
        torch.testing.assert_close(first.before, expected.classes)
        torch.testing.assert_close(first.above_before, expected.above)
        pooled = nn.functional.max_pool2d(dense[..., ::2, ::2].relu(), 3, 1, 1)
        torch.testing.assert_close(second.before, spectrum(pooled, 2).classes)
    assert not first.filtered and torch.equal(first.before, first.after)


@pytest.mark.parametrize("filter", ["blur", "bank"])
def test_a_filter_lowers_what_cannot_be_kept(filter):
    torch.manual_seed(0)
    plain = timm.create_model("resnet18").eval()
    model = copy.deepcopy(plain)
    antialias(model, AAConfig(filter=filter, init="paper" if filter == "bank" else "binomial"))
    rows = survey(model.eval(), [torch.randn(2, 3, 96, 96)])
    filters = [row for row in rows if row.filtered]
    assert len(filters) == 7 and [row.name for row in rows if not row.filtered] == ["conv1"]
    for row in filters:
        assert (row.above_after < row.above_before).all()
        assert row.after.sum(1).tolist() == pytest.approx([1.0] * 2)


def test_shared_hooks_are_taken_away_and_training_mode_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2))
    with pytest.raises(ValueError, match="training mode"):
        survey(model, [])
    survey(model.eval(), [torch.randn(1, 3, 16, 16)])
    assert not model[0]._forward_pre_hooks
    with pytest.raises(ValueError, match="no module of Sequential strides"):
        survey(nn.Sequential(nn.ReLU()).eval(), [])
