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


class CocoImages(Dataset):
    """Images and instances of an annotation file; labels are its category ids.

    Args:
        annotations: file in COCO's format.
        images: folder.

    Raises:
        FileNotFoundError: where one of them is missing.
        ValueError: for another kind of file, an empty one, or a category that it doesn't list.
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
        unknown = sorted({row["category_id"] for row in used} - known)
        if unknown:
            raise ValueError(f"{annotations}: category_id {unknown[0]} isn't in its categories")
        self.num_classes = max(known) + 1

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, Any]]:
        """An image (3, H, W) in [0, 1], and what is in it in pixels of the image."""
        row = self.coco.imgs[self.ids[index]]
        path = self.images / row["file_name"]
        try:
            image = decode_image(str(path), ImageReadMode.RGB).float() / 255
        except RuntimeError as error:
            raise OSError(f"{path} can't be read ({error}): replace the file") from error
        rows = self.coco.imgToAnns[row["id"]]
        rows = [r for r in rows if min(r["bbox"][2:]) > 0]
        masks = [self.coco.annToMask(r).astype(bool) for r in rows]
        boxes = np.array([r["bbox"] for r in rows], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return image, {
            "image_id": row["id"],
            "labels": torch.tensor([r["category_id"] for r in rows], dtype=torch.int64),
            "boxes": torch.from_numpy(boxes),
            "masks": torch.from_numpy(np.array(masks, np.uint8).reshape(-1, *image.shape[-2:])),
            "crowd": torch.tensor([bool(r.get("iscrowd", 0)) for r in rows], dtype=torch.bool),
        }
