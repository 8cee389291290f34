"""A dataset in COCO's format, as torchvision's detectors want it."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from torch.utils.data import Dataset
from torchvision.io import ImageReadMode, decode_image

from aa_plugins.evaluation.bad_images import BadImage
from aa_plugins.evaluation.identity import unique


class CocoImages(Dataset):
    """Images and instances of an annotation file; labels are its category ids.

    Args:
        annotations: file in COCO's format.
        images: folder.

    Raises:
        FileNotFoundError: where one of them is missing.
        ValueError: for another kind of file, an empty one, an id that two images have, or a
            category that it doesn't list.
    """

    def __init__(self, annotations: str | Path, images: str | Path) -> None:
        for path in (annotations, images):
            if not Path(path).exists():
                raise FileNotFoundError(f"{path} doesn't exist: give annotations=FILE images=DIR")
        self.images = Path(images)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self.coco = COCO(str(annotations))
                self.ids = sorted(self.coco.getImgIds())
                known, used = set(self.coco.getCatIds()), self.coco.anns.values()
        except (json.JSONDecodeError, AssertionError, KeyError, AttributeError) as error:
            raise ValueError(f"{annotations} isn't in COCO's format ({error!r})") from error
        if not self.ids:
            raise ValueError(f"{annotations} lists no image")
        # Of two images with one id the reader keeps the last.
        unique([row["id"] for row in self.coco.dataset["images"]], str(annotations))
        if not known:
            raise ValueError(f"{annotations} lists no category: add those of the detector")
        unknown = sorted({row["category_id"] for row in used} - known)
        if unknown:
            raise ValueError(f"{annotations}: category_id {unknown[0]} isn't in its categories")
        self.num_classes = max(known) + 1
        self.files = [self.images / self.coco.imgs[i]["file_name"] for i in self.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, Any] | None]:
        """An image (3, H, W) in [0, 1], and what is in it in pixels of the image.

        None where the file has no annotations at all; without `masks` where an annotation of the
        image is a box alone.

        Raises:
            OSError: where the image can't be read.
            BadImage: where it has another size than its annotations say.
        """
        row, path = self.coco.imgs[self.ids[index]], self.files[index]
        try:
            image = decode_image(str(path), ImageReadMode.RGB, apply_exif_orientation=True)
        except RuntimeError as error:
            raise OSError(f"{path} can't be read ({error}): replace the file") from error
        size = tuple(image.shape[-2:])
        if size != (row["height"], row["width"]):
            raise BadImage(
                row["id"],
                f"{path} is {size[0]}x{size[1]}, its annotations say {row['height']}x"
                f"{row['width']}: give annotations of its size (after EXIF rotation)",
            )
        image = image.float() / 255
        if "annotations" not in self.coco.dataset:
            return image, None
        rows = [r for r in self.coco.imgToAnns[row["id"]] if min(r["bbox"][2:]) > 0]
        boxes = np.array([r["bbox"] for r in rows], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        truth = {
            "image_id": row["id"],
            "labels": torch.tensor([r["category_id"] for r in rows], dtype=torch.int64),
            "boxes": torch.from_numpy(boxes),
            "crowd": torch.tensor([bool(r.get("iscrowd", 0)) for r in rows], dtype=torch.bool),
        }
        if all(r.get("segmentation") for r in rows):
            masks = np.array([self.coco.annToMask(r).astype(bool) for r in rows], np.uint8)
            truth["masks"] = torch.from_numpy(masks.reshape(-1, *size))
        return image, truth
