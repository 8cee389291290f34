"""A transform that stops training on labels that no class has."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class CheckLabels(BaseTransform):
    """Raise where a label map holds a label outside the classes; to follow LoadAnnotations.

    Args:
        num_classes: labels 0 to num_classes − 1 are valid.
        ignore_index: valid too.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        present = np.flatnonzero(np.bincount(results["gt_seg_map"].ravel(), minlength=256))
        wrong = present[(present >= self.num_classes) & (present != self.ignore_index)]
        if wrong.size:
            raise ValueError(
                f"{results['seg_map_path']} holds label {wrong[0]}, but there are "
                f"{self.num_classes} classes (0 to {self.num_classes - 1}) and ignored "
                f"{self.ignore_index}: correct the labels, or num_classes in the config"
            )
        return results
