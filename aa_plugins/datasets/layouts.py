"""Writes scenes of shapes in the folder layouts that the hosts read."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle
from tqdm import tqdm

from aa_plugins.datasets.shapes import CLASSES, Scene, draw_scene

SPLITS = ("train", "val")
# A writer gets the split's folder root, its name and its scenes in order.
Writer = Callable[[Path, str, Iterator[Scene]], None]


def write_shapes(
    folder: str | Path,
    layout: str,
    train: int = 120,
    val: int = 40,
    size: tuple[int, int] = (128, 160),
    seed: int = 0,
) -> None:
    """Draw a data set of shapes and write it; the folder appears when it is complete.

    The same arguments give the same files; image i of a split is the same however many follow.

    Args:
        folder: where to write; must not exist or be empty.
        layout: one of LAYOUTS.
        train, val: images per split, at least 1.
        size: height and width of every image in pixels.
        seed: a different seed gives different images.
    Raises:
        ValueError: an unknown layout or a number of images below 1.
        OSError: the folder can't be written.
        FileExistsError: the folder exists and holds something, or its .partial exists.
    """
    folder = Path(folder)
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}, choose one of {', '.join(LAYOUTS)}")
    if min(train, val) < 1:
        raise ValueError(f"each split needs at least 1 image, got {train=} and {val=}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} holds something already, remove it or name another folder")
    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():
        raise FileExistsError(f"{partial} is there, of an interrupted run? Remove it first")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise OSError(
            f"{folder} can't be written ({error.strerror}): name another folder"
        ) from error
    for split, count in zip(SPLITS, (train, val), strict=True):
        scenes = (
            draw_scene(*size, np.random.default_rng([seed, SPLITS.index(split), index]))
            for index in tqdm(range(count), desc=f"{folder.name} {split}")
        )
        LAYOUTS[layout](partial, split, scenes)
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)


def _save(array: np.ndarray, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def _write_coco(root: Path, split: str, scenes: Iterator[Scene]) -> None:
    """SPLIT/*.png and instances_SPLIT.json with one RLE mask per visible shape."""
    images, annotations = [], []
    for index, scene in enumerate(scenes, start=1):
        name = f"{index:06d}.png"
        _save(scene.image, root / split / name)
        height, width = scene.instances.shape
        images.append({"id": index, "file_name": name, "height": height, "width": width})
        for instance, label in enumerate(scene.classes, start=1):
            mask = rle.encode(np.asfortranarray(scene.instances == instance, np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": label,
                    "iscrowd": 0,
                    "area": int(rle.area(mask)),
                    "bbox": rle.toBbox(mask).tolist(),
                    "segmentation": {**mask, "counts": mask["counts"].decode("ascii")},
                }
            )
    categories = [
        {"id": label, "name": shape.name, "supercategory": "shape"}
        for label, shape in enumerate(CLASSES, start=1)
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / f"instances_{split}.json").write_text(json.dumps(content))


def _write_voc(root: Path, split: str, scenes: Iterator[Scene]) -> None:
    """VOCdevkit/VOC2012 with JPEG images and palette labels (0 ground, then the shapes)."""
    voc = root / "VOCdevkit" / "VOC2012"
    names = []
    for index, scene in enumerate(scenes, start=1):
        names.append(f"{split}_{index:06d}")
        _save(scene.image, voc / "JPEGImages" / f"{names[-1]}.jpg", quality=95)
        target = voc / "SegmentationClass" / f"{names[-1]}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        labels = Image.fromarray(scene.labels).convert("L")
        labels.putpalette(_voc_palette())
        labels.save(target)
    listing = voc / "ImageSets" / "Segmentation" / f"{split}.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{name}\n" for name in names))


def _voc_palette() -> list[int]:
    """VOC's colours: bit b of a label sets bit 7 - b // 3 of channel b mod 3."""
    return [
        sum(((label >> (3 * place + channel)) & 1) << (7 - place) for place in range(3))
        for label in range(256)
        for channel in range(3)
    ]


# Name, label id and training id of the Cityscapes classes that ground and shapes take the place of.
CITYSCAPES_CLASSES = (
    ("road", 7, 0),
    ("person", 24, 11),
    ("rider", 25, 12),
    ("car", 26, 13),
    ("truck", 27, 14),
    ("bus", 28, 15),
    ("train", 31, 16),
    ("motorcycle", 32, 17),
)


def _write_cityscapes(root: Path, split: str, scenes: Iterator[Scene]) -> None:
    """leftImg8bit and gtFine of one city; ground passes for road, shapes for CITYSCAPES_CLASSES."""
    names, label_ids, train_ids = zip(*CITYSCAPES_CLASSES, strict=True)
    for index, scene in enumerate(scenes, start=1):
        name = f"shapes/shapes_{index:06d}_000000"
        truth = f"{root}/gtFine/{split}/{name}_gtFine"
        _save(scene.image, root / "leftImg8bit" / split / f"{name}_leftImg8bit.png")
        _save(np.array(train_ids, np.uint8)[scene.labels], Path(f"{truth}_labelTrainIds.png"))
        _save(np.array(label_ids, np.uint8)[scene.labels], Path(f"{truth}_labelIds.png"))
        # Cityscapes numbers the instances of each class: 1000 times the label id, plus a count.
        ids = [label_ids[0]]
        for position, label in enumerate(scene.classes):
            ids.append(1000 * label_ids[label] + scene.classes[:position].count(label))
        _save(np.array(ids, np.uint16)[scene.instances], Path(f"{truth}_instanceIds.png"))
        Path(f"{truth}_polygons.json").write_text(json.dumps(_polygons(scene, names)))


def _polygons(scene: Scene, names: tuple[str, ...]) -> dict:
    """Outlines through the centres of the border pixels, as Cityscapes draws them."""
    height, width = scene.instances.shape
    frame = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    objects = [{"label": names[0], "polygon": frame}]
    for instance, label in enumerate(scene.classes, start=1):
        mask = (scene.instances == instance).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        objects += [
            {"label": names[label], "polygon": contour[:, 0].tolist()}
            for contour in contours
            if len(contour) >= 3
        ]
    return {"imgHeight": height, "imgWidth": width, "objects": objects}


def _write_camvid(root: Path, split: str, scenes: Iterator[Scene]) -> None:
    """images/SPLIT and labels/SPLIT, 8-bit ids: 0 ground, then the shapes (11 would be ignored)."""
    for index, scene in enumerate(scenes, start=1):
        _save(scene.image, root / "images" / split / f"{index:06d}.png")
        _save(scene.labels, root / "labels" / split / f"{index:06d}.png")


LAYOUTS: dict[str, Writer] = {
    "coco": _write_coco,
    "voc": _write_voc,
    "cityscapes": _write_cityscapes,
    "camvid": _write_camvid,
}
