"""The border of TensorFlow's "same" rule, against timm's own."""

import itertools

import pytest
import timm
import torch
from timm.layers.padding import get_same_padding

from aa_plugins import AAConfig, antialias
from aa_plugins.export import export
from aa_plugins.export.same_padding import same_padding


def test_it_is_what_timm_computes():
    for size, kernel, stride, dilation in itertools.product(
        range(1, 18), range(1, 8), range(1, 5), (1, 2)
    ):
        expected = get_same_padding(size, kernel, stride, dilation)
        assert same_padding(size, kernel, stride, dilation) == expected


@pytest.mark.slow
def test_a_converted_network_with_such_borders_is_exported_with_free_sizes(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=5).eval()
    antialias(model, AAConfig(filter="blur", stem=True))
    written = export(model, tmp_path / "net.onnx", torch.zeros(1, 3, 64, 96))
    assert list(written.differences) == [(64, 96), (65, 97), (49, 121)]
    assert max(written.differences.values()) < 1e-4
