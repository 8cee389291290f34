"""A filter is a file of `layers` and a row of `config.FILTERS`."""

import pytest
import torch
from torch import nn

from aa_plugins.config import FILTERS, AAConfig
from aa_plugins.layers.kinds import build_filter, filter_classes, kind_of


@pytest.mark.parametrize("name", FILTERS)
def test_every_name_builds_its_filter(name):
    layer = build_filter(AAConfig(filter=name, kernel_size=5, pad_mode="zeros"), 12, 2).eval()
    assert kind_of(layer) == name and type(layer) is filter_classes()[name]
    assert layer.pad_mode == ("circular" if name == "flc" else "zeros") and layer.stride == 2
    assert layer(torch.randn(1, 12, 9, 7)).shape == (1, 12, 5, 4)


def test_another_module_is_no_filter():
    assert kind_of(nn.AvgPool2d(2)) is None
