"""Datasets by path, and images that can't be read named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    get_detection_dataset_dicts,
)
from detectron2.data.datasets import builtin, load_coco_json

# Datasets that came in by path; any other name belongs to Detectron2 or to the user's code.
_paths: dict[str, tuple[str, str]] = {}


def use_data_root(root: str | Path) -> None:
    """Have relative paths of data sets start at `root`, in place of $DETECTRON2_DATASETS.

    Detectron2 reads that variable on import alone: its own data sets are registered anew.

    Raises:
        FileNotFoundError: where there is no such folder.
    """
    if not Path(root).is_dir():
        raise FileNotFoundError(f"--data-root {root}: no such folder")
    os.environ["DETECTRON2_DATASETS"] = builtin._root = str(root)
    catalogs = (DatasetCatalog, MetadataCatalog)
    before = [dict(catalog.data) for catalog in catalogs]
    try:
        for catalog in catalogs:
            catalog.data = {}
        for name, register in vars(builtin).items():
            if name.startswith("register_all_"):
                register(str(root))
        own = [dict(catalog.data) for catalog in catalogs]
    finally:
        for catalog, entries in zip(catalogs, before):
            catalog.data = entries
    for catalog, entries in zip(catalogs, own):
        catalog.data.update(entries)


def names_in(loader: Any) -> list[str]:
    """Names of registered datasets that a loader of a LazyConfig reads."""
    dataset = loader.get("dataset", {})
    names = dataset.get("names", dataset.get("name", []))
    return [names] if isinstance(names, str) else list(names)


def names_of(images: list[dict[str, Any]]) -> str:
    """What to call images in a message: their files, or ids."""
    return ", ".join(f"image {row.get('file_name', row.get('image_id'))}" for row in images)


def register_coco_paths(cfg: CfgNode, root: str | Path | None = None) -> None:
    """Register the datasets of `DATASETS.COCO_PATHS`; once more with other paths replaces them.

    Args:
        root: where relative paths start, in place of $DETECTRON2_DATASETS.
    """
    for name, paths in cfg.DATASETS.COCO_PATHS.items():
        if not isinstance(paths, (list, tuple)) or len(paths) != 2:
            raise ValueError(
                f"DATASETS.COCO_PATHS.{name}={paths!r}: give [annotation file, image folder]"
            )
        register_coco(name, *paths, root=root)


def register_coco(
    name: str, json_file: str, image_root: str, root: str | Path | None = None
) -> None:
    """Register a dataset in COCO's format under `name`, which COCOEvaluator then evaluates.

    Args:
        json_file, image_root: paths; relative ones start at `root`, $DETECTRON2_DATASETS or
            ./datasets.

    Raises:
        FileNotFoundError: where a path doesn't exist.
        ValueError: where `name` is one of Detectron2's own datasets.
    """
    root = os.path.expanduser(root or os.getenv("DETECTRON2_DATASETS", "datasets"))
    paths = (os.path.join(root, json_file), os.path.join(root, image_root))
    for path in paths:
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"dataset {name!r}: {path} doesn't exist; relative paths start at {root!r}, which "
                "the environment variable DETECTRON2_DATASETS sets"
            )
    if _paths.get(name) == paths:
        return
    if name in DatasetCatalog:
        if name not in _paths:
            raise ValueError(f"dataset {name!r} exists already: choose another name for {paths[0]}")
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    _paths[name] = paths
    DatasetCatalog.register(name, lambda: load_coco(name, *paths))
    MetadataCatalog.get(name).set(json_file=paths[0], image_root=paths[1], evaluator_type="coco")


def coco_dataset(name: str, json_file: str, image_root: str, **options: Any) -> list[dict]:
    """Register a dataset and give its dicts: the callable for LazyConfig.

    Args:
        name, json_file, image_root: as of `register_coco`.
        options: of Detectron2's `get_detection_dataset_dicts`, such as filter_empty.
    """
    register_coco(name, json_file, image_root)
    return get_detection_dataset_dicts(names=name, **options)


def load_coco(name: str, json_file: str, image_root: str) -> list[dict]:
    """Detectron2's dicts of an annotation file in COCO's format.

    Raises:
        ValueError: where the file isn't one, holds no image, or an annotation of a category that
            it doesn't list.
    """
    try:
        dicts = load_coco_json(json_file, image_root, name)
    except (json.JSONDecodeError, AssertionError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{json_file} isn't an annotation file in COCO's format ({error}): it needs lists "
            '"images", "annotations" and "categories"'
        ) from error
    except KeyError as error:
        raise ValueError(f"{json_file}: {error.args[0]}") from error
    if not dicts:
        raise ValueError(f"{json_file} lists no image: give another file for dataset {name!r}")
    return dicts


class CheckedMapper(DatasetMapper):
    """Detectron2's mapper, which names the file that can't be read."""

    def __call__(self, dataset_dict: dict) -> dict | None:
        try:
            return super().__call__(dataset_dict)
        except (OSError, SyntaxError) as error:
            raise OSError(
                f"{dataset_dict['file_name']} can't be read ({error}): replace the file, or take "
                "it out of the annotation file"
            ) from error
