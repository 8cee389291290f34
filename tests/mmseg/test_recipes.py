"""The recipes of the full data sets run as they are, but for a thin network and one iteration."""

import argparse
import shutil
from pathlib import Path

import pytest

pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")

from aa_plugins.datasets import write_shapes
from aa_plugins.mmseg.train import main

ROOT = Path(__file__).resolve().parents[2]
THIN = [
    "model.pretrained=None",
    "model.backbone.depth=18",
    "model.backbone.base_channels=8",
    "model.backbone.stem_channels=8",
    "model.decode_head.in_channels=64",
    "model.decode_head.c1_in_channels=8",
    "model.decode_head.c1_channels=8",
    "model.decode_head.channels=16",
    "model.auxiliary_head.in_channels=32",
    "model.auxiliary_head.channels=8",
]
SHORT = ["train_cfg.max_iters=1", "train_cfg.val_interval=1", "train_dataloader.batch_size=2"]
SHORT += ["test_evaluator.1.protocol.shifts=[[1,0]]", "test_evaluator.1.protocol.controls=False"]
SHORT += [
    f"{loader}_dataloader.{option}"
    for loader in ("train", "val", "test")
    for option in ("num_workers=0", "persistent_workers=False")
]


def voc(root):
    """VOC 2012 with its augmented labels."""
    write_shapes(root, "voc", train=2, val=1)
    folder = root / "VOCdevkit/VOC2012"
    shutil.copytree(folder / "SegmentationClass", folder / "SegmentationClassAug")
    lists = folder / "ImageSets/Segmentation"
    shutil.copy(lists / "train.txt", lists / "aug.txt")
    return folder


def cityscapes(root):
    write_shapes(root, "cityscapes", train=2, val=1)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("write", [voc, cityscapes], ids=["voc", "cityscapes"])
def test_the_recipe_trains_and_tests(tmp_path, write):
    name = write.__name__
    args = argparse.Namespace(
        config_file=str(ROOT / f"configs/mmseg/deeplabv3plus_r101_{name}_adaptive.py"),
        data_root=str(write(tmp_path / "data")),
        work_dir=str(tmp_path / "work"),
        cfg_options=[*THIN, *SHORT],
        weights=None,
        resume=False,
        eval_only=False,
        amp=False,
        launcher="none",
        local_rank=0,
    )
    metrics = main(args)
    assert 0 <= metrics["mIoU"] <= 100 and 0 < metrics["shift/mASSC"] <= 100
    assert (tmp_path / "work/iter_1.pth").is_file()
