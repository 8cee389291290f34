"""What can be wrong with a run's inputs, found before any work is done."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from torch import nn

from aa_plugins.evaluation.identity import unique

PATHS = ("json_file", "image_root", "image_dir", "gt_dir", "dirname", "panoptic_json")


def check_datasets(names: Sequence[str]) -> None:
    """Raise ValueError for a name that isn't registered, FileNotFoundError for files that lack."""
    for name in names:
        if name not in DatasetCatalog:
            nearest = difflib.get_close_matches(name, DatasetCatalog.list(), n=1)
            hint = f"did you mean {nearest[0]}? Or " if nearest else ""
            raise ValueError(
                f"no data set {name!r}: {hint}give its paths, DATASETS.COCO_PATHS.{name}: "
                "[annotation file, image folder] (in a LazyConfig by coco_dataset)"
            )
        metadata = MetadataCatalog.get(name)
        for path in (metadata.get(key) for key in PATHS):
            if path and "://" not in path and not os.path.exists(path):
                root = os.getenv("DETECTRON2_DATASETS", "datasets")
                raise FileNotFoundError(
                    f"data set {name!r}: {path} doesn't exist; data sets lie in {root!r}, which "
                    "--data-root or the environment variable DETECTRON2_DATASETS sets"
                )


def images_of(name: str) -> list[dict[str, Any]]:
    """The images of a test set; ValueError where there are none, or an id repeats."""
    try:
        images = get_detection_dataset_dicts([name], filter_empty=False)
    except AssertionError as error:
        raise ValueError(f"data set {name!r}: {error}") from error
    check_ids(name)
    return images


def check_ids(name: str) -> None:
    """Raise ValueError for an id that a file in COCO's format has twice: its reader keeps one."""
    file = MetadataCatalog.get(name).get("json_file")
    if file and "://" not in file:
        content = json.loads(Path(file).read_text())
        unique([row["id"] for row in content.get("images", [])], file)


def check_classes(names: Sequence[str], model: nn.Module) -> None:
    """Raise ValueError where a model has fewer classes than a loaded data set."""
    classes = num_classes(model)
    for name in names:
        things = MetadataCatalog.get(name).get("thing_classes")
        if classes is not None and things is not None and len(things) > classes:
            raise ValueError(
                f"data set {name!r} has {len(things)} classes, but the model {classes}: set "
                f"MODEL.ROI_HEADS.NUM_CLASSES (of RetinaNet MODEL.RETINANET.NUM_CLASSES, in a "
                f"LazyConfig model...num_classes) to {len(things)}"
            )


def num_classes(model: nn.Module) -> int | None:
    """The classes of a detector's instances, or None where it finds none."""
    for part in (getattr(model, "roi_heads", None), model):
        if isinstance(getattr(part, "num_classes", None), int):
            return part.num_classes
    return None


def check_folder(folder: str) -> None:
    """Raise OSError where a run couldn't write its output."""
    parent = Path(folder)
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OSError(f"{folder} can't be written: give another folder")
