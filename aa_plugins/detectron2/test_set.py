"""A test set, image by image, each changed as soon as it is read where one asks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform

from aa_plugins.detectron2.consistency import LEFT_OUT, TruthMapper, id_of, truth_of
from aa_plugins.evaluation.bad_images import BadImage
from aa_plugins.hosts.interface import Change


class _Change(Transform):
    """Changes the image and moves nothing; does nothing until it is told what."""

    def __init__(self, image_format: str) -> None:
        super().__init__()
        self.change: Change | None = None
        self.flip = image_format == "BGR"

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        if self.change is None:
            return img
        img = img[..., ::-1] if self.flip else img
        changed = self.change(np.ascontiguousarray(img))
        return np.ascontiguousarray(changed[..., ::-1] if self.flip else changed)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation


class TestSet:
    """Rows of a data set, and how they are read.

    Args:
        rows: Detectron2's dicts.
        mapper: keeps the ground truth.
    """

    __test__ = False  # pytest would take it for tests

    def __init__(self, rows: list[dict[str, Any]], mapper: TruthMapper) -> None:
        self.rows, self._mapper = rows, mapper
        self._step = _Change(mapper.image_format)
        mapper.augmentations = T.AugmentationList([self._step, *mapper.augmentations.augs])

    def load(self, index: int, change: Change | None) -> tuple[torch.Tensor, dict[str, Any] | None]:
        """Pixels (C, H, W) of an image as the network gets them, and its instances there.

        Raises:
            BadImage: where it can't be read.
        """
        self._step.change = change
        row = self.rows[index]
        found = self._mapper(copy.deepcopy(row))
        if LEFT_OUT in found:
            raise BadImage(id_of(row), found[LEFT_OUT])
        return found["image"], truth_of(found["instances"]) if "instances" in found else None
