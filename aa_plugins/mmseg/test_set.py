"""The test set of a config, image by image, each changed as soon as it is read where one asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from aa_plugins.hosts.interface import Change
from aa_plugins.mmseg.consistency import truth_at_input
from aa_plugins.mmseg.images import Dataset, check_files, parts_of
from aa_plugins.mmseg.segmentors import network_input


class _Change:
    """A step of a pipeline, right after the image is read; does nothing until it is told what."""

    change: Change | None = None

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        if self.change is not None:
            changed = self.change(np.ascontiguousarray(results["img"][..., ::-1]))
            results["img"] = np.ascontiguousarray(changed[..., ::-1])
        return results


class TestSet:
    """A data set of a test; files that can't be used are taken out of it.

    Attributes:
        ids: of the images by path, in order.
        num_classes: of the labels.

    Raises:
        ValueError: where no image is left, or where a pipeline reads images in a way of its own.
    """

    __test__ = False  # pytest would take it for tests

    def __init__(self, dataset: Dataset) -> None:
        check_files(dataset)
        self._dataset, self._step = dataset, _Change()
        paths = (dataset.get_data_info(index)["img_path"] for index in range(len(dataset)))
        self.ids = {path: dataset.checked[0][path] for path in paths}
        self.num_classes = len(dataset.metainfo["classes"])
        for part in parts_of(dataset):
            steps = part.pipeline.transforms
            readers = [i for i, s in enumerate(steps) if type(s).__name__.startswith("LoadImage")]
            if not readers:
                names = ", ".join(type(step).__name__ for step in steps)
                raise ValueError(f"the test pipeline ({names}) has no step LoadImage...: add one")
            steps.insert(readers[0] + 1, self._step)

    def load(
        self, model: nn.Module, index: int, change: Change | None
    ) -> tuple[torch.Tensor, np.ndarray | None]:
        """Pixels (C, H, W) of an image as the network gets them, and its labels (H, W) there."""
        self._step.change = change
        sample = self._dataset[index]
        pixels = network_input(model, sample["inputs"])
        name = list(self.ids.values())[index]
        truth = truth_at_input(name, sample["data_samples"].to_dict(), pixels.shape[-2:])
        return pixels, None if truth is None else truth.numpy()
