"""tools/quantize.py on a small network with a predicted filter."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from aa_plugins import antialias
from aa_plugins.export import export
from aa_plugins.export.formats import FORMATS, OpenVino
from quantize import filter_nodes, input_shape, photos, quantize, quantize_openvino

SIDE = 32
HOW = ([2, 3, SIDE, SIDE], (40, 48), np.full(3, 0.5), np.full(3, 0.25))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """network.onnx and .xml of 2×3×32×32, and smooth photos of 60×50."""
    folder = tmp_path_factory.mktemp("quantize")
    random = np.random.default_rng(0)
    for number in range(8):
        small = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        small.resize((50, 60), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 64, 3, 2, 1), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    model = nn.Sequential(*body, *head).eval()
    antialias(model, {"groups": 4}, example=torch.zeros(1, 3, SIDE, SIDE))
    export(model, folder / "network.onnx", torch.zeros(*HOW[0]), fixed=True)
    OpenVino.convert(folder / "network.onnx", folder / "network.xml")
    return folder


def apart(folder, one, other):
    """By how much two files differ on the photos, of the spread of what the first gives."""
    batches = [torch.from_numpy(batch) for batch in photos(folder, *HOW)]
    found = [torch.cat([FORMATS[f.suffix].open(f)(b)[0] for b in batches]) for f in (one, other)]
    return ((found[1] - found[0]).norm() / (found[0] - found[0].mean(0)).norm()).item()


def test_photos_are_resized_normalized_and_cropped(folder):
    (first, *_), count = photos(folder, *HOW), 8
    assert len(list(photos(folder, *HOW))) == count
    image = Image.open(folder / "0.png").resize((48, 40), Image.Resampling.BILINEAR)
    expected = (np.asarray(image, np.float32)[:SIDE, :SIDE] / 255 - 0.5) / 0.25
    assert first.shape == (2, 3, SIDE, SIDE) and first.dtype == np.float32
    assert np.allclose(first, expected.transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("keep", [False, True])
def test_onnx_in_int8_computes_nearly_the_same(folder, keep):
    import onnx

    path = folder / "network.onnx"
    made = quantize(path, photos(folder, *HOW), keep)
    assert made.name == f"network-{'mixed' if keep else 'int8'}.onnx"
    assert 0 < apart(folder, path, made) < 0.1
    # What a filter computes is between a pair of QuantizeLinear and DequantizeLinear, or isn't.
    filters = set(filter_nodes(path))
    graph = onnx.load(made).graph
    convolutions = [n for n in graph.node if n.op_type == "Conv" and n.name in filters]
    givers = {out: node.op_type for node in graph.node for out in node.output}
    quantized = {givers.get(node.input[1]) == "DequantizeLinear" for node in convolutions}
    assert filters and quantized == {not keep}


@pytest.mark.skipif(find_spec("nncf") is None, reason="nncf isn't installed")
def test_openvino_in_int8_computes_nearly_the_same(folder):
    path = folder / "network.xml"
    made = quantize_openvino(path, photos(folder, *HOW))
    assert 0 < apart(folder, path, made) < 0.3  # its ranges are wider than ONNX Runtime's
    kinds = "FakeQuantize" in made.read_text(), "FakeQuantize" in path.read_text()
    assert kinds == (True, False)


@pytest.mark.skipif(find_spec("nncf") is not None, reason="nncf is installed")
def test_openvino_without_nncf_says_what_to_install(folder):
    with pytest.raises(ModuleNotFoundError, match="pip install nncf"):
        quantize_openvino(folder / "network.xml", [])


def test_a_file_of_free_sizes_is_refused(folder, tmp_path):
    export(nn.Conv2d(3, 4, 3).eval(), tmp_path / "free.onnx", torch.zeros(1, 3, 16, 16))
    OpenVino.convert(tmp_path / "free.onnx", tmp_path / "free.xml")
    for suffix in (".onnx", ".xml"):
        with pytest.raises(ValueError, match="export it for one size"):
            input_shape(tmp_path / f"free{suffix}")
        assert input_shape(folder / f"network{suffix}") == HOW[0]


def test_a_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no photos in"):
        next(photos(tmp_path, *HOW))
