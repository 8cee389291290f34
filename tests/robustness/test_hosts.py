"""Every host gives its test images changed as asked, with the truth that its own run scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torchvision.models import get_model

from aa_plugins.command import run
from aa_plugins.datasets import write_shapes
from aa_plugins.datasets.images import read_image
from aa_plugins.evaluation import Protocol, RecordWriter, read_records
from aa_plugins.hosts.interface import load_network
from aa_plugins.robustness.conditions import Condition, chosen, measure
from aa_plugins.robustness.worst_shift import measure_worst, shift_protocol

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PROTOCOL = Protocol(stride=32, shifts=((1, 0),), controls=False, crop=(64, 96))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images with labels and with instances, and random weights of a network of each host."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("robustness")
    write_shapes(folder / "camvid", "camvid", train=1, val=3, size=(96, 128))
    write_shapes(folder / "shapes", "coco", train=1, val=3, size=(96, 128))
    torch.save(timm.create_model("test_resnet").state_dict(), folder / "timm.pth")
    detector = get_model(
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        weights=None,
        weights_backbone=None,
        num_classes=8,
        min_size=96,
    )
    torch.save(detector.state_dict(), folder / "torchvision.pth")
    return folder


def network_of(host, folder, monkeypatch):
    if host == "timm":
        (folder / "classes").mkdir(exist_ok=True)
        for number, file in enumerate(sorted((folder / "shapes/val").glob("*.png"))):
            target = folder / "classes" / f"{number}_x" / file.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
        data = {"data": folder / "classes", "size": (64, 96)}
        return load_network("timm:test_resnet", weights=folder / "timm.pth", **data)
    if host == "torchvision":
        data = {"data": folder / "shapes/val", "annotations": folder / "shapes/instances_val.json"}
        name = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"
        return load_network(name, weights=folder / "torchvision.pth", **data)
    pytest.importorskip(host, reason=f"{host} isn't installed: make setup")
    if host == "mmseg":
        config = CONFIGS / "mmseg/deeplabv3plus_r18_shapes_blur.py"
        network = load_network(str(config), data_root=folder / "camvid")
    else:
        from tests.detectron2.shared import SHAPES, TINY

        monkeypatch.setenv("DETECTRON2_DATASETS", str(folder))
        small = [f"{key}={value}" for key, value in zip(TINY[::2], TINY[1::2])]
        network = load_network(SHAPES, overrides=tuple(small))
    network.model.eval()
    return network


HOSTS = ("timm", pytest.param("torchvision", marks=pytest.mark.slow), "mmseg", "detectron2")


@pytest.mark.parametrize("host", HOSTS)
def test_a_change_comes_first_and_truth_stays(host, folder, monkeypatch, tmp_path):
    network = network_of(host, folder, monkeypatch)
    seen = []

    def upside_down(image):
        seen.append(image.copy())
        return np.ascontiguousarray(255 - image)

    samples = network.samples(PROTOCOL)
    assert len({sample.image_id for sample in samples}) == 3
    plain, truth = samples[1].load(None)
    changed, same = samples[1].load(upside_down)
    again, _ = samples[1].load(None)
    assert torch.equal(plain, again) and not seen[1:]
    assert np.array_equal(seen[0], read_image(samples[1].file))
    # Inverted pixels add up to white, everywhere and in every channel alike.
    white, _ = samples[1].load(lambda image: np.full_like(image, 255))
    black, _ = samples[1].load(np.zeros_like)
    total = plain.float() + changed.float()
    torch.testing.assert_close(total, white.float() + black.float(), atol=1.01, rtol=0)
    if isinstance(truth, dict):
        assert np.array_equal(np.asarray(truth["boxes"]), np.asarray(same["boxes"]))
        assert len(truth["labels"])
    else:
        assert np.array_equal(truth, same) and truth is not None

    conditions = [Condition("clean"), Condition("inverted/1", upside_down)]
    found = measure(network, conditions, PROTOCOL, tmp_path, "corruptions", images=2)
    assert len(found) == 2 and set(found[0]["conditions"]) == {"clean", "inverted/1"}
    header, _ = read_records(tmp_path)
    assert header["task"] == f"{network.task}/corruptions"
    worst = measure_worst(
        network, shift_protocol(PROTOCOL.to_dict(), 1), 1, tmp_path / "worst", images=1
    )
    assert worst[0]["looked_at"] <= 9


def test_clean_is_what_the_hosts_own_run_measures(folder, tmp_path, monkeypatch):
    network = network_of("timm", folder, monkeypatch)
    own = network.measure(PROTOCOL, tmp_path / "own")
    found = measure(network, [Condition("clean")], PROTOCOL, tmp_path / "c", "bands")
    assert [record["conditions"]["clean"] for record in found] == own


def test_the_worst_shift_is_that_of_all_views(folder, tmp_path, monkeypatch):
    """Against the record of a run on every shift, which says what was right within a radius."""
    network = network_of("timm", folder, monkeypatch)
    protocol = shift_protocol({"stride": 32, "crop": (60, 92)}, 2)
    every = network.measure(protocol, tmp_path / "every")
    found = measure_worst(network, protocol, 2, tmp_path / "worst")
    for one, other in zip(found, every, strict=True):
        for radius in (1, 2):
            shifts = [i for i, s in enumerate(other["shifts"]) if max(map(abs, s)) <= radius]
            right = all(c == other["label"] for i in shifts for c in other["classes"][i])
            worst = one["conditions"][f"within/{radius}"]
            assert (worst["classes"][0][0] == worst["label"]) == right


def test_going_on_measures_what_is_missing_alone(folder, tmp_path, monkeypatch):
    network = network_of("timm", folder, monkeypatch)
    conditions = [Condition("clean")]
    whole = measure(network, conditions, PROTOCOL, tmp_path / "whole", "bands")
    file = next((tmp_path / "whole").glob("records*"))
    torn = tmp_path / "torn" / file.name
    torn.parent.mkdir()
    torn.write_bytes(b"".join(file.read_bytes().splitlines(True)[:2]) + b'{"image_id": "cut')
    appended = []
    append = RecordWriter.append
    monkeypatch.setattr(
        RecordWriter, "append", lambda self, r: appended.append(r["image_id"]) or append(self, r)
    )
    assert measure(network, conditions, PROTOCOL, torn.parent, "bands", resume=True) == whole
    assert len(appended) == 2
    with pytest.raises(ValueError, match="pipeline="):
        measure(network, [Condition("b/1")], PROTOCOL, tmp_path / "whole", "bands", resume=True)


def test_evenly_spread():
    assert chosen(range(10), 3) == [0, 3, 6] and chosen(range(3), 9) == [0, 1, 2]
    with pytest.raises(ValueError, match="0 images: give 1"):
        chosen(range(3), 0)


@pytest.mark.parametrize(
    "analysis",
    ["corruptions", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bands", "shifts"))],
)
def test_the_command(analysis, folder, tmp_path, capsys, monkeypatch):
    if analysis == "corruptions":
        pytest.importorskip("imagecorruptions", reason="pip install 'aa-plugins[robustness]'")
    network_of("timm", folder, monkeypatch)  # writes the images
    arguments = [analysis, "timm:test_resnet", "timm:aa_test_resnet", "--weights"]
    arguments += [str(folder / "timm.pth")] * 2
    arguments += ["--data", str(folder / "classes"), "--size", "64", "64", "--out", str(tmp_path)]
    own = {"corruptions": "--corruptions fog contrast --severities 1 5", "bands": ""}
    arguments += own.get(analysis, "--radius 2 --budget 4").split()
    assert run("robustness", [*arguments, "--debug"]) == 0
    content = json.loads((tmp_path / f"{analysis}.json").read_text())
    assert set(content["results"]) == {"test_resnet", "aa_test_resnet"}
    said = capsys.readouterr().out
    assert "aa_test_resnet - test_resnet" in said
    assert ("mCE" in said) == (analysis == "corruptions")
    assert run("robustness", [*arguments]) == 1  # the records that are there
    assert "--resume goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bands", "--severities", "1"], "--severities has no effect on bands"),
        (["corruptions", "--budget", "9"], "--budget has no effect on corruptions"),
        (["shifts", "--preset", "zhang"], "--preset has no effect on shifts"),
        (["shifts", "--radius", "0"], "radius 0: give 1"),
        (["corruptions", "--severities", "7"], "severity 7: give 1 to 5"),
    ],
)
def test_what_is_refused(arguments, said, folder, tmp_path, capsys, monkeypatch):
    network_of("timm", folder, monkeypatch)
    command = [arguments[0], "timm:test_resnet", "--weights", str(folder / "timm.pth")]
    command += ["--data", str(folder / "classes"), "--out", str(tmp_path), *arguments[1:]]
    assert run("robustness", command) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
