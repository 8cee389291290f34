"""Networks in exported files: measured as the network that they were exported from."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from aa_plugins.command import run
from aa_plugins.export.formats import OpenVino
from aa_plugins.hosts.interface import load_network
from aa_plugins.hosts.module import ModuleNetwork, Preparation

pytest.importorskip("onnx", reason="onnx isn't installed")
pytest.importorskip("onnxruntime", reason="onnxruntime isn't installed")
pytest.importorskip("openvino", reason="openvino isn't installed")


class Detector(nn.Module):
    """One box around what is bright, for each of two classes."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        bright = image.mean(0)
        scores = torch.stack([bright.max(), bright.mean()])
        corner = (bright.sum(1).argmax(), bright.sum(0).argmax())
        box = torch.stack([corner[1], corner[0], corner[1] + 4, corner[0] + 4]).float()
        return box.repeat(2, 1), torch.tensor([1, 2]), scores


def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 4, 3, 1, 1)
    ).eval()


def scores() -> nn.Module:
    return nn.Sequential(*dense(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def written(model: nn.Module, path, free: bool = True, **options) -> str:
    example = torch.zeros(3, 48, 64) if isinstance(model, Detector) else torch.zeros(1, 3, 48, 64)
    axes = {example.ndim - 2: "height", example.ndim - 1: "width"} if free else {}
    graph = path.with_suffix(".onnx")
    torch.onnx.export(
        model,
        (example,),
        graph,
        dynamo=False,
        input_names=["image"],
        dynamic_axes={"image": axes},
        **options,
    )
    if path.suffix == ".xml":
        OpenVino.convert(graph, path)
        graph.unlink()
    return str(path)


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        small = Image.fromarray(random.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        small.resize((96, 72)).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("file", ["net.onnx", "net.xml"])
@pytest.mark.parametrize(("build", "task"), [(scores, "classification"), (dense, "semantic")])
def test_it_says_what_the_network_says(build, task, file, tmp_path, photos):
    network = load_network(written(build(), tmp_path / file), data=photos)
    assert network.task == task and network.stride == 4 and network.num_classes == 4
    twin = ModuleNetwork(build(), task, preparation=Preparation())
    assert twin.stride == network.stride
    views = [torch.randn(3, 48, 64), torch.randn(3, 37, 41)]
    for found, expected in zip(network.predict(views), twin.predict(views), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("file", ["net.onnx", "net.xml"])
def test_detections_by_their_names(file, tmp_path):
    names = {"output_names": ["boxes", "labels", "scores"]}
    network = load_network(written(Detector(), tmp_path / file, **names))
    assert network.task == "instance"
    image = torch.rand(3, 40, 56)
    (found,) = network.predict([image])
    for name, expected in zip(["boxes", "labels", "scores"], Detector()(image), strict=True):
        torch.testing.assert_close(found[name], expected)


def test_consistency_flicker_and_report_run_it(tmp_path, photos, capsys):
    a, b = (written(scores(), tmp_path / name) for name in ("a.onnx", "b.xml"))
    sizes = ["--size", "32", "48"]
    out = ["--out", str(tmp_path / "out")]
    assert run("consistency", [a, "--data", str(photos), *sizes, *out, "--debug"]) == 0
    assert run("flicker", [a, b, "--photos", str(photos), "--frames", "3", *sizes, *out]) == 0
    capsys.readouterr()
    out = ["--out", str(tmp_path / "report")]
    assert run("report", [a, b, "--photos", str(photos), *sizes, *out, "--debug"]) == 0
    assert "Per cent of views that keep their class" in capsys.readouterr().out
    page = (tmp_path / "report/report.html").read_text()
    assert "this page shows predictions alone" in page and "As the image moves" in page


def test_a_file_of_one_size_is_measured_and_shown_without_a_moving_picture(
    tmp_path, photos, capsys
):
    file = written(dense(), tmp_path / "fixed.onnx", free=False)
    sizes = ["--size", "64", "80", "--protocol", '{"kind": "grid", "stride": 4}']
    out = ["--out", str(tmp_path / "out")]
    assert run("consistency", [file, "--data", str(photos), *sizes, *out, "--debug"]) == 0
    said = capsys.readouterr().out
    assert "no moving picture: the file takes 1×3×48×64 alone, not 55×71" in said
    assert json.loads((tmp_path / "out/consistency.json").read_text())["results"]


def test_report_of_networks_that_can_be_looked_into(tmp_path, photos, capsys):
    import timm

    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "plain.pth")
    arguments = ["timm:test_resnet", "timm:aa_test_resnet", "--weights"]
    arguments += [str(tmp_path / "plain.pth")] * 2
    arguments += ["--photos", str(photos), "--images", "1", "--out", str(tmp_path / "report")]
    protocol = json.dumps({"shifts": [[1, 0], [0, 1]], "controls": False})
    assert run("report", [*arguments, "--protocol", protocol, "--debug"]) == 0
    page = (tmp_path / "report/report.html").read_text()
    titles = [
        "What flickers, and why",
        "As the image moves",
        "Where it comes from",
        "What each subsampling mixes up",
        "What the filters do",
        "Numbers",
        "In detail",
    ]
    places = [page.index(title) for title in titles]
    assert places == sorted(places)
    assert "aa_test_resnet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diagnose", "N", "--photos", "P"], "layers of an exported file can't be reached"),
        (["stabilize", "N", "--photos", "P"], "layers of an exported file can't be reached"),
        (["export", "N", "--out", "x.pt2"], "layers of an exported file can't be reached"),
        (["inspect", "N"], "layers of an exported file can't be reached"),
        (["flicker", "none.onnx", "--photos", "P"], "no file none.onnx"),
        (["flicker", "B", "--photos", "P"], "can't be read as ONNX"),
        (["flicker", "X", "--photos", "P"], "can't be read as OpenVINO's"),
        (["flicker", "none.xml", "--photos", "P"], "no file none.xml"),
        (["flicker", "N", "--photos", "P", "--aa", "filter=blur"], "its weights and its layers"),
        (["flicker", "F", "--photos", "P"], "export it with free height and width"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message, tmp_path, photos, capsys):
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    (tmp_path / "broken.xml").write_bytes(b"not a graph")
    files = {
        "N": written(dense(), tmp_path / "net.onnx"),
        "F": written(dense(), tmp_path / "fixed.onnx", free=False),
        "B": str(tmp_path / "broken.onnx"),
        "X": str(tmp_path / "broken.xml"),
        "P": str(photos),
    }
    assert run(arguments[0], [files.get(a, a) for a in arguments[1:]]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and message in lines[-1]
