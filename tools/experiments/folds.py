"""Cross-validation: the images of a COCO data set's training and test file divided anew.

The data set has `instances_{train,val}.json` and folders `train` and `val`; its own test set is
fold 0, and its shuffled training images are the others, so that every image is tested on once.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from aa_plugins.report.page import write_json

PARTS = ("train", "val")


def divided(data: Path, folds: int, fold: int, out: Path) -> dict[str, list[str]]:
    """Write a fold's two annotation files below `out`, and links to the images to train on in
    `out`/photos.

    Args:
        data: folder of the data set.
        folds: how many there are.
        fold: which one to test on, counted from 0; the others are trained on.

    Returns:
        "train" and "val" to [annotation file, image folder], as `DATASETS.COCO_PATHS` takes them.

    Raises:
        ValueError: for a fold that there isn't, or ids that both files use.
    """
    if not 0 <= fold < folds:
        raise ValueError(f"fold {fold}: seeds of {folds} folds are 0 to {folds - 1}")
    files = {part: json.loads((data / f"instances_{part}.json").read_text()) for part in PARTS}
    images = {part: _in_folder(files[part]["images"], part) for part in PARTS}
    shuffled = random.Random(0).sample(images["train"], len(images["train"]))
    parts = [images["val"], *(shuffled[start :: folds - 1] for start in range(folds - 1))]
    tested = parts.pop(fold)
    content = {"train": [image for part in parts for image in part], "val": tested}
    annotations = [row for part in PARTS for row in files[part]["annotations"]]
    for rows in (annotations, [image for part in PARTS for image in images[part]]):
        if len({row["id"] for row in rows}) < len(rows):
            raise ValueError(f"{data}: ids of instances_train.json and instances_val.json overlap")
    paths = {}
    for part, found in content.items():
        ids = {image["id"] for image in found}
        rows = [row for row in annotations if row["image_id"] in ids]
        kept = {**files["train"], "images": found, "annotations": rows}
        write_json(out / f"fold_{part}.json", kept)
        paths[part] = [str((out / f"fold_{part}.json").resolve()), str(data.resolve())]
    photos = out / "photos"
    photos.mkdir(exist_ok=True)
    for image in content["train"]:
        link = photos / image["file_name"].replace("/", "_")
        if not link.is_symlink():
            link.symlink_to((data / image["file_name"]).resolve())
    return paths


def _in_folder(images: list[dict[str, Any]], folder: str) -> list[dict[str, Any]]:
    return [{**image, "file_name": f"{folder}/{image['file_name']}"} for image in images]
