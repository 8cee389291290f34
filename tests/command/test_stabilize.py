"""`aa-plugins stabilize`: from photos to weights that load as ever."""

import json

import cv2
import numpy as np
import pytest
import timm
import torch

import aa_plugins.timm  # noqa: F401  only registration
from aa_plugins.command import run


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(6):
        coarse = random.integers(0, 256, (12, 12, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(coarse, (96, 96)))
    return folder


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "plain.pth"
    torch.save(timm.create_model("resnet18").state_dict(), path)
    return path


QUICK = ("--size", "64", "64", "--set", "lr=1e-4", "steps=2", "views=2", "batch=2", "check_every=1")


def test_a_classifier_with_filters_put_in(photos, weights, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["timm:resnet18", "--weights", weights, "--photos", photos, "--out", out]
    assert run("stabilize", [*map(str, arguments), "--aa", "filter=adaptive", *QUICK]) == 0
    assert "agreement with the average" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert set(report) >= {"teacher", "before", "after", "kept"}
    state = torch.load(out / "stabilized.pth", weights_only=True)["state_dict"]
    student = timm.create_model("aa_resnet18", aa={"filter": "adaptive"})
    student.load_state_dict(state)
    assert torch.isfinite(student.eval()(torch.zeros(1, 3, 64, 64))).all()


def test_a_classifier_that_takes_one_size_gets_it(photos, tmp_path):
    path, out = tmp_path / "one_size.pth", tmp_path / "out"
    torch.save(timm.create_model("test_vit_relpos").state_dict(), path)
    arguments = ["timm:test_vit_relpos", "--weights", str(path), "--photos", str(photos)]
    assert run("stabilize", [*arguments, "--out", str(out), *QUICK[3:], "--debug"]) == 0
    assert (out / "stabilized.pth").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["timm:resnet18"], "timm:resnet18 has no weights"),
        (["timm:resnet18", "--weights", "WEIGHTS", "--set", "step=2"], "--set step: known are"),
        (["timm:resnet18", "--weights", "WEIGHTS", "--set", "lr=low"], "lr='low' must be a number"),
    ],
)
def test_what_is_wrong_is_one_line(photos, weights, tmp_path, capsys, arguments, message):
    given = [str(weights) if a == "WEIGHTS" else a for a in arguments]
    assert run("stabilize", [*given, "--photos", str(photos), "--out", str(tmp_path)]) == 1
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error" in text]
    assert message in line


def test_photos_of_several_sizes_are_enlarged_to_the_window(photos):
    from aa_plugins.command.stabilize import Prepared
    from aa_plugins.datasets.images import Photos
    from aa_plugins.training import Settings

    class Untouched:
        def prepared(self, image):
            return torch.from_numpy(image.copy()).permute(2, 0, 1)

    cv2.imwrite(str(photos / "0.png"), np.full((40, 90, 3), 7, np.uint8))
    settings = Settings(stride=8, size=(64, 48))
    (small,) = Prepared(Untouched(), Photos(photos), settings, held_out=True)
    assert small.shape == (3, 71, 160) and small.dtype == torch.uint8 and (small == 7).all()
    others = Prepared(Untouched(), Photos(photos), settings, held_out=False)
    assert len(others) == 5 and others[0].shape == (3, 96, 96)
