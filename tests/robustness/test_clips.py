"""Frames of videos: pm-k by brute force, ImageNet-VID's layout, folders of clips."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo

from aa_plugins.command import run
from aa_plugins.datasets import imagenet_vid
from aa_plugins.evaluation.bootstrap import intervals
from aa_plugins.evaluation.resampling import Images
from aa_plugins.report.moving import write_video
from aa_plugins.robustness.clips import LabelledClips, clip_statistics


def record(name, classes, right):
    return {"image_id": name, "protocol": "p", "classes": classes, "right": right}


def test_pm_k_is_that_of_its_definition():
    random = np.random.default_rng(0)
    records = [
        record(
            str(i), random.integers(3, size=n).tolist(), random.choice([0, 1, 1, None], n).tolist()
        )
        for i, n in enumerate((1, 7, 20))
    ]
    tree = intervals(clip_statistics(records), units=Images("clip"), resamples=20)
    for k in (1, 5, 10):
        held, known = 0, 0
        for one in records:
            for i, own in enumerate(one["right"]):
                if own is None:
                    continue
                known += 1
                held += all(r != 0 for j, r in enumerate(one["right"]) if abs(i - j) <= k)
        assert tree["pm"][str(k)]["value"] == pytest.approx(100 * held / known)
        same = [
            a == b
            for one in records
            for i, a in enumerate(one["classes"])
            for j, b in enumerate(one["classes"])
            if 0 < j - i <= k
        ]
        assert tree["agreement_within"][str(k)]["value"] == pytest.approx(100 * np.mean(same))
    right = [r for one in records for r in one["right"] if r is not None]
    assert tree["accuracy"]["value"] == pytest.approx(100 * np.mean(right))
    assert tree["accuracy"]["unit"] == "clip" and tree["accuracy"]["images"] == 3


def test_the_map_of_classes_is_by_their_names():
    """Of each of the 30 a word that is in the description of every class it stands for."""
    words = {
        "n02691156": "airliner warplane", "n02419796": "hartebeest impala gazelle",
        "n02131653": "bear", "n02834778": "bicycle bike", "n02924116": "bus",
        "n02402425": "ox", "n02121808": "cat", "n02503517": "elephant", "n02118333": "fox",
        "n02510455": "giant", "n02342885": "hamster", "n02374451": "sorrel", "n02129165": "lion",
        "n03790512": "moped scooter", "n02324045": "rabbit", "n02509815": "panda",
        "n02411705": "ram sheep", "n02355227": "squirrel", "n02129604": "tiger",
        "n04468005": "train locomotive", "n01662784": "turtle terrapin tortoise",
        "n02062744": "whale", "n02391049": "zebra", "n02958343":
        "ambulance wagon cab convertible jeep limousine minivan Model racer car",
        "n04530566": "carrier canoe catamaran container fireboat gondola lifeboat liner pirate "
        "schooner speedboat trimaran yawl",
        "n01726692": "snake boa python cobra mamba viper diamondback sidewinder",
        "n01674464": "gecko iguana chameleon whiptail agama lizard monster dragon",
    }  # fmt: skip
    names = ImageNetInfo()
    assert len(imagenet_vid.CLASSES) == 30
    for wnid, wanted in words.items():
        for index in imagenet_vid.CLASSES[wnid]:
            described = names.index_to_description(index)
            assert any(word in described for word in wanted.split()), (wnid, index, described)
    # Ranges of many names, by what lies at and just outside of their ends.
    label = names.index_to_description
    assert "Chihuahua" in label(151) and "Mexican hairless" in label(268)
    assert "wolf" in label(269) and "cock" in label(7) and "vulture" in label(23)
    assert "owl" in label(24) and "albatross" in label(146) and "whale" in label(147)
    assert "guenon" in label(370) and "squirrel monkey" in label(382) and "lemur" in label(383)
    flat = [index for rows in imagenet_vid.CLASSES.values() for index in rows]
    assert len(flat) == len(set(flat))


@pytest.fixture
def vid(tmp_path):
    """ImageNet-VID in small: two snippets of frames, one with an object that leaves."""
    random = np.random.default_rng(0)
    for snippet, objects in (("a", ["n02084071"] * 3), ("b", ["n02391049", None, "n02391049"])):
        data, notes = (tmp_path / part / "VID/val" / snippet for part in ("Data", "Annotations"))
        for folder in (data, notes):
            folder.mkdir(parents=True)
        for frame, name in enumerate(objects):
            pixels = random.integers(0, 255, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(data / f"{frame:06d}.JPEG")
            inner = f"<object><trackid>0</trackid><name>{name}</name></object>" if name else ""
            text = f"<annotation><folder>{snippet}</folder>{inner}</annotation>"
            (notes / f"{frame:06d}.xml").write_text(text)
    return tmp_path


def test_frames_of_imagenet_vid_have_the_classes_of_their_objects(vid):
    dogs, zebras = LabelledClips(vid, 1000)
    assert dogs.classes == [list(range(151, 269))] * 3
    assert zebras.classes == [[340], [], [340]] and zebras.name == "Data/VID/val/b"
    (first, last) = list(LabelledClips(vid, 1000, every=2))[1].classes
    assert first == last == [340]
    with pytest.raises(ValueError, match="the network 10 classes"):
        LabelledClips(vid, 10)
    (vid / "map.json").write_text('{"n02084071": [1]}')
    with pytest.raises(ValueError, match="'n02391049' isn't in the map"):
        list(LabelledClips(vid, 10, class_map=vid / "map.json"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    return str(path)


def test_the_command_on_imagenet_vid(vid, weights, tmp_path, capsys):
    arguments = ["timm:test_resnet", "timm:aa_test_resnet", "--weights", weights, weights]
    arguments += ["--videos", str(vid), "--size", "32", "32", "--out", str(tmp_path / "out")]
    assert run("clips", [*arguments, "--debug"]) == 0
    found = json.loads((tmp_path / "out/clips.json").read_text())
    assert found["results"]["test_resnet"]["accuracy"]["unit"] == "clip"
    assert "95 % intervals [over clips]" in capsys.readouterr().out
    assert run("clips", [*arguments, "--resume"]) == 0
    again = json.loads((tmp_path / "out/clips.json").read_text())
    assert again["results"] == found["results"]


def test_any_folder_of_clips(weights, tmp_path, capsys):
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)
    (tmp_path / "clips/5_walk/one").mkdir(parents=True)
    (tmp_path / "clips/7_run").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"clips/5_walk/one/{number}.png")
    write_video(tmp_path / "clips/7_run/two.mp4", frames, 10)
    clips = list(LabelledClips(tmp_path / "clips", 1000))
    assert [(c.name, c.classes[0], len(c.clip)) for c in clips] == [
        ("5_walk/one", [5], 4),
        ("7_run/two.mp4", [7], 4),
    ]
    with pytest.raises(FileNotFoundError, match="no clip .*CLASS/CLIP"):
        LabelledClips(tmp_path / "clips/5_walk/one", 1000)
