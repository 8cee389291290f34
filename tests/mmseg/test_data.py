import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")

from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image

from aa_plugins.datasets import CLASSES
from aa_plugins.mmseg import CheckLabels

ROOT = Path(__file__).resolve().parents[2]

PIPELINE = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]


def camvid(root, split="val", **options):
    prefix = {"img_path": f"images/{split}", "seg_map_path": f"labels/{split}"}
    return DATASETS.build(
        dict(type="CamVidDataset", data_root=str(root), data_prefix=prefix, **options)
    )


@pytest.fixture
def folder(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").mkdir(parents=True)
    labels = np.array([[0, 10, 11], [3, 11, 5]], np.uint8)
    for name, suffix in (("b", ".png"), ("a", ".jpg")):
        image = np.zeros((2, 3, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "images/val" / f"{name}{suffix}")
        Image.fromarray(labels).save(tmp_path / "labels/val" / f"{name}.png")
    return tmp_path


def test_camvid_reads_both_formats_and_ignores_label_11(folder):
    dataset = camvid(folder, pipeline=PIPELINE)
    assert [dataset.get_data_info(i)["img_path"][-5:] for i in range(2)] == ["a.jpg", "b.png"]
    assert dataset[0]["gt_seg_map"].tolist() == [[0, 10, 255], [3, 255, 5]]
    assert len(dataset.metainfo["classes"]) == 11


def test_shapes_has_the_classes_that_are_drawn(shapes):
    prefix = {"img_path": "images/train", "seg_map_path": "labels/train"}
    dataset = DATASETS.build(
        dict(type="ShapesDataset", data_root=str(shapes), data_prefix=prefix, pipeline=PIPELINE)
    )
    assert len(dataset) == 4
    assert len(dataset.metainfo["classes"]) == len(CLASSES) + 1
    assert dataset[0]["gt_seg_map"].max() <= len(CLASSES)


def test_missing_folders_images_and_labels_are_named(folder):
    with pytest.raises(FileNotFoundError, match=r"no folder .*images/test.*--data-root"):
        camvid(folder, "test")
    (folder / "labels/val/a.png").unlink()
    with pytest.raises(FileNotFoundError, match=re.escape("a.jpg has no label map")):
        camvid(folder)
    shutil.rmtree(folder / "images/val")
    (folder / "images/val").mkdir()
    with pytest.raises(FileNotFoundError, match="no .jpg or .png image"):
        camvid(folder)


def test_a_label_outside_the_classes_is_named():
    check = CheckLabels(num_classes=11)
    fine = {"gt_seg_map": np.array([[0, 10, 255]], np.uint8), "seg_map_path": "x.png"}
    assert check(fine) is fine
    wrong = {"gt_seg_map": np.array([[0, 37, 255]], np.uint8), "seg_map_path": "x.png"}
    with pytest.raises(ValueError, match=r"x\.png holds label 37, but there are 11 classes"):
        check(wrong)


def test_the_tuning_split_takes_whole_sequences_of_train():
    root = ROOT.parent / "shared/data/camvid"
    if not root.is_dir():
        pytest.skip("no ../shared/data/camvid here")
    cfg = Config.fromfile(str(ROOT / "configs/mmseg/deeplabv3plus_r18_camvid_tuning.py"))
    names = {}
    for part in ("train", "test"):
        dataset = cfg[f"{part}_dataloader"].dataset
        data = DATASETS.build({**dataset, "data_root": str(root), "pipeline": []})
        paths = [Path(data.get_data_info(i)["img_path"]) for i in range(len(data))]
        assert {path.parent.name for path in paths} == {"train"}
        names[part] = {path.stem.split("_")[0] for path in paths}
    assert names == {"train": {"0001TP", "0016E5"}, "test": {"0006R0"}}


def test_the_real_camvid_has_the_labels_we_say():
    root = ROOT.parent / "shared/data/camvid"
    if not root.is_dir():
        pytest.skip("no ../shared/data/camvid here")
    dataset = camvid(root, pipeline=PIPELINE)
    assert len(dataset) == 101
    assert len(camvid(root, "train")) == 367
    check = CheckLabels(num_classes=11)
    for index in range(0, 101, 20):
        check(dataset[index])
