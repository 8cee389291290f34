"""`diagnose` and `flicker`: from photos or a video to a page."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from aa_plugins.command import run
from aa_plugins.report.moving import write_video

torch.manual_seed(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier's weights, photos, a video of one of them, and a module with a segmentor."""
    folder = tmp_path_factory.mktemp("see")
    torch.save(timm.create_model("test_resnet").state_dict(), folder / "plain.pth")
    torch.save(timm.create_model("test_vit_relpos").state_dict(), folder / "one_size.pth")
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(2):
        small = Image.fromarray(random.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        small.resize((256, 224)).save(folder / "photos" / f"{number}.png")
    frame = np.array(Image.open(folder / "photos" / "0.png"))
    write_video(folder / "clip.mp4", [np.roll(frame, 2 * i, 1) for i in range(5)], 10)
    (folder / "nets.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))\n"
    )
    return folder


def test_diagnose_names_the_place_and_what_reaches_it(folder, tmp_path, capsys):
    arguments = ["timm:test_resnet", "--weights", str(folder / "plain.pth")]
    arguments += ["--photos", str(folder / "photos"), "--images", "2", "--out", str(tmp_path)]
    assert run("diagnose", [*arguments, "--debug"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"In test_resnet, \S+ brings in most flicker .*\[.*\].*reaches it", said)
    page = (tmp_path / "diagnose.html").read_text()
    for heading in ("As the image moves", "Where it comes from", "What each subsampling mixes up"):
        assert heading in page
    assert "with a blur, untrained" in page and page.count("<svg") >= 4
    assert {path.suffix for path in tmp_path.iterdir()} == {".html", ".svg", ".png"}


def test_flicker_of_photos_under_a_known_path(folder, tmp_path, capsys):
    arguments = ["timm:test_resnet", "timm:aa_test_resnet", "--weights"]
    arguments += [str(folder / "plain.pth")] * 2
    arguments += ["--photos", str(folder / "photos"), "--frames", "4", "--out", str(tmp_path)]
    assert run("flicker", [*arguments, "--debug"]) == 0
    found = json.loads((tmp_path / "flicker.json").read_text())
    assert set(found["results"]) == {"test_resnet", "aa_test_resnet"}
    assert found["notes"]["steps"] == {"test_resnet": 6, "aa_test_resnet": 6}
    assert "aa_test_resnet - test_resnet" in found["differences"]
    assert (tmp_path / "flicker.mp4").stat().st_size > 0
    assert "animated" not in capsys.readouterr().err


def test_flicker_of_a_segmentor_on_a_video(folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    arguments = ["nets:build", "--task", "semantic", "--video", str(folder / "clip.mp4")]
    arguments += ["--size", "96", "128", "--out", str(tmp_path)]
    assert run("flicker", [*arguments, "--debug"]) == 0
    found = json.loads((tmp_path / "flicker.json").read_text())["results"]["build"]
    assert 0 <= found["flicker"]["value"] <= 100 and 0 <= found["mTC"]["value"] <= 100
    assert found["flicker"]["unit"] == "block"


@pytest.mark.parametrize(
    ("command", "images"),
    [
        ("diagnose", ["--photos", "photos"]),
        ("consistency", ["--data", "photos"]),
        ("flicker", ["--photos", "photos", "--frames", "3"]),
        ("flicker", ["--video", "clip.mp4"]),
    ],
)
def test_a_classifier_that_takes_one_size_gets_it(folder, tmp_path, command, images):
    option, place, *rest = images
    arguments = ["timm:test_vit_relpos", "--weights", str(folder / "one_size.pth"), option]
    arguments += [str(folder / place), *rest, "--out", str(tmp_path), "--debug"]
    assert run(command, arguments) == 0
    assert (tmp_path / f"{command}.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flicker", "timm:test_resnet", "--weights", "W", "--photos", "none"], "no folder none"),
        (["flicker", "timm:test_resnet", "--weights", "W", "--video", "none.mp4"], "no video"),
        (
            ["flicker", "timm:test_resnet", "--weights", "W", "--photos", "P", "--frames", "1"],
            "--frames 1: nothing can flicker",
        ),
        (
            ["diagnose", "timm:test_resnet", "--weights", "W", "--photos", "P", "--images", "0"],
            "--images 0: give 1 or more",
        ),
        (["diagnose", "timm:test_resnet", "--photos", "P"], "has no weights"),
    ],
)
def test_what_is_wrong_is_one_line(folder, arguments, said, capsys):
    places = {"W": str(folder / "plain.pth"), "P": str(folder / "photos")}
    assert run(arguments[0], [places.get(a, a) for a in arguments[1:]]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and said in error
