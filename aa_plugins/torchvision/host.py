"""Classifiers, segmentors and detectors of torchvision: "torchvision:NAME"."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision import models
from torchvision.models import detection as detectors
from torchvision.models import segmentation as segmentors

from aa_plugins.datasets.coco import CocoImages
from aa_plugins.evaluation import InstanceConsistency, Protocol
from aa_plugins.hosts.detector import InstancesOf, at_input, predict, stride_of
from aa_plugins.hosts.interface import Change, Network, Record, Request, Sample
from aa_plugins.hosts.module import PRETRAINED, check_data, network_of
from aa_plugins.torchvision import detection

CLASSES = {"classification": 1000, "semantic": 21}  # of torchvision's own weights


def load(request: Request) -> Network:
    """A network of torchvision, its images prepared as its own weights' transforms say.

    Raises:
        ValueError: for an unknown name, or another task than the network's.
    """
    name = request.network.removeprefix(detection.PREFIX)
    task = task_of(name)
    if request.task not in (None, task):
        raise ValueError(f"{request.network} is for task {task}, not {request.task}")
    if task == "instance":
        return Detector(request)
    classes = request.classes or CLASSES[task]
    options: dict[str, Any] = {"num_classes": classes, "weights": None}
    if request.weights == PRETRAINED:
        options["weights"] = "DEFAULT"
    elif task == "semantic":
        options["weights_backbone"] = None
    model = models.get_model(name, **options)
    return network_of(model, task, request, num_classes=classes, **_own(name, task))


def task_of(name: str) -> str:
    """What a network of torchvision does.

    Raises:
        ValueError: where torchvision has none of that name.
    """
    known = models.list_models()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "torchvision.models.list_models()"
        raise ValueError(f"torchvision has no network {name!r}: {hint}")
    if name in models.list_models(module=detectors):
        return "instance"
    return "semantic" if name in models.list_models(module=segmentors) else "classification"


def _own(name: str, task: str) -> dict[str, Any]:
    """How torchvision prepares images for the network."""
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    own: dict[str, Any] = {"mean": tuple(transforms.mean), "std": tuple(transforms.std)}
    if task == "classification":
        own["size"] = (transforms.crop_size[0],) * 2
    return own


class Detector(Network):
    """A detector of torchvision on a file in COCO's format; see `detection.evaluate`."""

    task = "instance"

    def __init__(self, request: Request) -> None:
        check_data(request, self.task)
        given = ("classes", "ignore", "size", "mean", "std")
        request.refuse(*given, why="as a detector and its annotations say it")
        if request.weights == PRETRAINED:
            raise ValueError(f"{request.network}: weights={PRETRAINED!r}: give their file")
        self.request, self.weights = request, request.weights
        self.name = request.network.removeprefix(detection.PREFIX)
        self.overrides = list(request.overrides)
        if request.data is not None:
            paths = {"images": request.data, "annotations": request.annotations}
            self.overrides += [f"{key}={Path(path).resolve()}" for key, path in paths.items()]
        if request.aa is not None:
            fields = request.aa.to_dict().items()
            self.overrides += [f"{key}={json.dumps(value)}" for key, value in fields]
        if request.weights is not None:
            detection.check(request.network, request.weights, request.data_root, self.overrides)

    @cached_property
    def model(self) -> nn.Module:
        if self.weights is None:
            return detection.build_detector(self.name, 91, {"filter": "none"}).eval()
        request = self.request
        return detection.load_detector(
            request.network, self.weights, request.data_root, self.overrides
        )

    @property
    def core(self) -> nn.Module:
        return self.model.backbone

    def inputs(self) -> Iterator[tuple[str | int, torch.Tensor]]:
        dataset = self._images
        for index, image_id in enumerate(dataset.ids):
            yield image_id, at_input(self.model, dataset[index][0], None)[0]

    def samples(self, protocol: Protocol) -> list[Sample]:
        dataset = self._images

        def load(index: int, change: Change | None) -> tuple[torch.Tensor, Any]:
            image, truth = dataset[index]
            if change is not None:
                pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
                image = torch.from_numpy(change(pixels)).permute(2, 0, 1).float() / 255
            return at_input(self.model, image, truth)

        rows = enumerate(zip(dataset.ids, dataset.files))
        return [Sample(name, str(file), partial(load, index)) for index, (name, file) in rows]

    def scorer(self, protocol: Protocol) -> InstanceConsistency:
        return InstanceConsistency(protocol, self._images.num_classes)

    @cached_property
    def _images(self) -> CocoImages:
        return detection.images_of(self.request.data_root, self.overrides)

    def trainable(self) -> InstancesOf:
        return InstancesOf(self.model)

    def prepared(self, image: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
        return at_input(self.model, pixels, None)[0]

    @cached_property
    def stride(self) -> int:
        return stride_of(self.model)

    def protocol(self) -> dict[str, Any]:
        return detection.protocol_of(self.request.network, self.overrides)

    def example(self) -> torch.Tensor:
        return torch.zeros(1, 3, 512, 512)

    def predict(self, views: Iterable[torch.Tensor]) -> Iterator[dict[str, Any]]:
        for view in views:
            yield predict(self.model, view)

    def measure(
        self, protocol: Protocol, folder: str | Path, resume: bool = False, processes: int = 1
    ) -> list[Record]:
        if processes > 1:
            raise ValueError(f"{processes} processes: {self.name} is measured in one")
        request = self.request
        if self.weights is None:
            raise ValueError(f"{request.network} has no weights to measure: name them")
        options = (request.data_root, self.overrides, resume)
        return detection.evaluate(request.network, self.weights, protocol, folder, *options)
