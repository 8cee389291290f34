"""Data sets laid out as two folders, one of images and one of label maps of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from aa_plugins.config import as_patterns
from aa_plugins.datasets import CLASSES

IMAGE_SUFFIXES = (".jpg", ".png")
IGNORED_CAMVID_LABEL = 11


class FolderDataset(BaseSegDataset):
    """Images `img_path/*.jpg` or `*.png` with 8-bit label maps `seg_map_path/*.png`.

    Args:
        names: patterns (fnmatch) of the images' names without suffix; those that match one are
            the data set, so that a folder can be split by sequence.

    Raises:
        FileNotFoundError: where a folder is missing, holds no such image, or one has no labels.
        ValueError: where two images have the same name, but for their suffix.
    """

    def __init__(self, *args: Any, names: str | Sequence[str] = ("*",), **kwargs: Any) -> None:
        self.names = as_patterns("names", names)
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry an image, sorted by name."""
        images, labels = (Path(self.data_prefix[key]) for key in ("img_path", "seg_map_path"))
        for folder in (images, labels):
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"no folder {folder}: set the dataset's data_root to where images/ and "
                    "labels/ lie, with --data-root"
                )
        found = sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        found = [p for p in found if any(fnmatchcase(p.stem, name) for name in self.names)]
        if not found:
            wanted = f"{' or '.join(IMAGE_SUFFIXES)} image named {' or '.join(self.names)}"
            raise FileNotFoundError(f"no {wanted} in {images}")
        entries, by_name = [], {}
        for image in found:
            if (other := by_name.setdefault(image.stem, image)) != image:
                raise ValueError(f"{other} and {image} share one label map: rename or remove one")
            label = labels / f"{image.stem}.png"
            if not label.is_file():
                raise FileNotFoundError(f"{image} has no label map {label}")
            entries.append(
                {
                    "img_path": str(image),
                    "seg_map_path": str(label),
                    "label_map": self.label_map,
                    "reduce_zero_label": self.reduce_zero_label,
                    "seg_fields": [],
                }
            )
        return entries


@DATASETS.register_module()
class CamVidDataset(FolderDataset):
    """CamVid (Brostow et al., 2009): labels 0 to 10 are its usual classes, 11 is ignored."""

    METAINFO = {
        "classes": (
            "Sky",
            "Building",
            "Pole",
            "Road",
            "Pavement",
            "Tree",
            "SignSymbol",
            "Fence",
            "Car",
            "Pedestrian",
            "Bicyclist",
        ),
        "palette": [
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    }

    @classmethod
    def get_label_map(cls, new_classes: Any = None) -> dict[int, int]:
        """The host's mapping, in which the unlabelled rest goes to the host's ignored label."""
        return {**(super().get_label_map(new_classes) or {}), IGNORED_CAMVID_LABEL: 255}


@DATASETS.register_module()
class ShapesDataset(FolderDataset):
    """Textured shapes in CamVid's layout: label 0 is the ground, the others CLASSES."""

    METAINFO = {
        "classes": ("ground", *(shape.name for shape in CLASSES)),
        "palette": [[37 * i % 256, 91 * i % 256, 157 * i % 256] for i in range(len(CLASSES) + 1)],
    }
