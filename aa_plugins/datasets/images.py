"""Images to measure a network on, with or without labels, from the usual folders.

Each kind has `ids` (one an image, unique), `files`, `task`, and `read(index)`, which gives the
image as (H, W, 3) uint8 in RGB and what is known of it. Orientation in EXIF data is followed.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from aa_plugins.evaluation.bad_images import check_labels
from aa_plugins.evaluation.identity import image_ids

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")
# What Cityscapes and CamVid append to the name that an image and its labels share.
OF_IMAGES = re.compile(r"_leftImg8bit$")
OF_LABELS = re.compile(r"(_gtFine)?_labelTrainIds$|_L$")


class Images(ABC):
    """Images of a folder in the order of their paths.

    Attributes:
        task: "classification", "semantic" or "instance".
        files: paths of the images.
        ids: of the images.
    """

    task: str

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}: give the folder of the images")
        self.files = sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not self.files:
            raise FileNotFoundError(f"no image in {folder}: looked for {' '.join(SUFFIXES)}")
        self.ids: list[str | int] = list(image_ids(self.files, self.folder))

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> tuple[np.ndarray, Any]:
        """The image (H, W, 3), and its truth: None, a class, labels (H, W), or instances."""
        return read_image(self.files[index]), self.truth(index)

    @abstractmethod
    def truth(self, index: int) -> Any:
        """What is known of an image."""


class Photos(Images):
    """A folder of images of which nothing is known."""

    task = "none"

    def truth(self, index: int) -> None:
        return None


class ClassifiedImages(Images):
    """A folder of images, or one of class folders (ImageFolder): `CLASS/NAME.jpg`.

    A class folder that is called by a number, or begins with one ("7", "207_n02099601"), is that
    class; otherwise classes are numbered in the order of their folders' names, as torchvision's
    ImageFolder does. Images right in the folder have no class.

    Args:
        num_classes: of the network; folders without numbers must be as many.

    Raises:
        FileNotFoundError: without any image.
        ValueError: where a class isn't one of the network's, or can't be told.
    """

    task = "classification"

    def __init__(self, folder: str | Path, num_classes: int) -> None:
        super().__init__(folder)
        names = [path.relative_to(self.folder).parts[:-1] for path in self.files]
        self.classes: list[int | None] = [None] * len(self.files)
        if any(names):
            classes = numbered(sorted({n[0] for n in names if n}), num_classes, folder)
            self.classes = [classes[n[0]] if n else None for n in names]

    def truth(self, index: int) -> int | None:
        return self.classes[index]


class SegmentedImages(Images):
    """A folder of images and one of label maps, at the same place below each.

    A label map is an image of class numbers in one channel; `NAME.png` belongs to `NAME.jpg`,
    `NAME_gtFine_labelTrainIds.png` to `NAME_leftImg8bit.png`, `NAME_L.png` to `NAME.png`. Images
    without one are left out, as VOC has many, and counted in `unlabelled`.

    Args:
        labels: their folder; None to measure consistency alone.
    """

    task = "semantic"

    def __init__(self, folder: str | Path, labels: str | Path | None = None) -> None:
        super().__init__(folder)
        self.labels: list[Path | None] = [None] * len(self.files)
        self.unlabelled = 0
        if labels is None:
            return
        if not Path(labels).is_dir():
            raise FileNotFoundError(f"no folder {labels}: give the folder of the label maps")
        maps = sorted(Path(labels).rglob("*.png"))
        known = {_shared(path, Path(labels), OF_LABELS): path for path in maps}
        found = [known.get(_shared(p, self.folder, OF_IMAGES)) for p in self.files]
        kept = [index for index, path in enumerate(found) if path is not None]
        if not kept:
            raise FileNotFoundError(
                f"no label map in {labels} for any image in {folder}, such as {self.files[0].name}"
            )
        self.unlabelled = len(self.files) - len(kept)
        self.files, self.ids = ([row[i] for i in kept] for row in (self.files, self.ids))
        self.labels = [found[index] for index in kept]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        image, labels = super().read(index)
        if labels is not None:
            check_labels(labels, image.shape[:2], self.ids[index], self.labels[index])
        return image, labels

    def truth(self, index: int) -> np.ndarray | None:
        path = self.labels[index]
        if path is None:
            return None
        with Image.open(path) as labels:
            return np.asarray(labels)


class CocoInstances:
    """The images of an annotation file in COCO's format, with their instances.

    Args:
        folder: of the images.
        annotations: the file.
    """

    task = "instance"

    def __init__(self, folder: str | Path, annotations: str | Path) -> None:
        from aa_plugins.datasets.coco import CocoImages

        self._coco = CocoImages(annotations, folder)
        self.folder, self.num_classes = Path(folder), self._coco.num_classes
        self.ids: list[str | int] = list(self._coco.ids)
        rows = self._coco.coco.imgs
        self.files = [self.folder / rows[image_id]["file_name"] for image_id in self.ids]
        self.annotations = Path(annotations)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> tuple[np.ndarray, dict[str, Any]]:
        """The image (H, W, 3), and its `boxes`, `labels`, `masks` and `crowd` in its pixels."""
        image, truth = self._coco[index]
        pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
        return pixels, {name: values for name, values in truth.items() if name != "image_id"}


def read_image(path: str | Path) -> np.ndarray:
    """An image as (H, W, 3) uint8, RGB, the way up that its EXIF data say."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _shared(path: Path, root: Path, suffix: re.Pattern) -> Path:
    """What an image and its labels have in common: the place below their folders."""
    relative = path.relative_to(root)
    return relative.with_name(suffix.sub("", relative.stem))


def numbered(names: list[str], num_classes: int, folder: str | Path) -> dict[str, int]:
    """The class of each class folder: the number it begins with, else by the order of names.

    Raises:
        ValueError: where there aren't as many as the network has classes, or a number is too large.
    """
    numbers = [re.match(r"\d+(?=_|$)", name) for name in names]
    if all(numbers):
        classes = {name: int(number[0]) for name, number in zip(names, numbers)}
    elif len(names) == num_classes:
        classes = {name: index for index, name in enumerate(names)}
    else:
        raise ValueError(
            f"{folder} has {len(names)} class folders, the network {num_classes} classes: call "
            'each folder by its class, such as "207_retriever"'
        )
    if (largest := max(classes.values())) >= num_classes:
        raise ValueError(f"{folder} has class {largest}, the network {num_classes} classes")
    return classes
