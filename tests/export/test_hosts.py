"""Networks of the hosts in both runtimes, against torch."""

from __future__ import annotations

import pytest
import torch

from aa_plugins import get_config_file
from aa_plugins.diagnostics.equivalence import perturb, relative_difference
from aa_plugins.export import export
from aa_plugins.export.formats import OpenVino


def check_in_both(model: torch.nn.Module, example: torch.Tensor, path) -> None:
    for package in OpenVino.packages:
        pytest.importorskip(package, reason=f"{package} isn't installed")
    perturb(model, torch.randn(2, *example.shape[1:]))
    written = export(model, path, example)
    assert len(written.differences) == 3
    assert max(written.differences.values()) < 1e-5
    in_openvino = OpenVino.open(path)
    for images, size in zip((1, 3), written.differences):
        x = torch.randn(images, 3, *size)
        with torch.no_grad():
            expected = model(x)
        expected = list(expected.values()) if isinstance(expected, dict) else [expected]
        assert relative_difference(in_openvino(x), expected) < 1e-5


def test_a_whole_deeplab(tmp_path):
    pytest.importorskip("mmseg", reason="mmseg isn't installed")
    from aa_plugins.hosts.interface import load_network
    from aa_plugins.hosts.module import PixelScores

    torch.manual_seed(0)
    network = load_network("mmseg/deeplabv3plus_r18_camvid_adaptive.py")
    example = torch.zeros(1, 3, 64, 96)
    check_in_both(PixelScores(network.model), example, tmp_path / "deeplab.onnx")


def test_a_backbone_of_mask_rcnn_with_its_pyramid(tmp_path):
    pytest.importorskip("detectron2", reason="detectron2 isn't installed")
    from aa_plugins.hosts.interface import load_network

    torch.manual_seed(0)
    config = get_config_file("detectron2/PennFudan/mask_rcnn_R_18_FPN_blur.yaml")
    network = load_network(config)
    check_in_both(network.core, torch.zeros(1, 3, 96, 160), tmp_path / "fpn.onnx")
