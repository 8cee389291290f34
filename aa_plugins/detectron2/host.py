"""Configs of Detectron2, yaml and LazyConfig, as networks tested on the config's own test set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper
from torch import nn

from aa_plugins.detectron2 import evaluate
from aa_plugins.detectron2.consistency import id_of, prediction
from aa_plugins.detectron2.instances import InstancesOf, trainable
from aa_plugins.detectron2.stride import total_stride
from aa_plugins.detectron2.weights import load_detectron2_weights
from aa_plugins.evaluation import InstanceConsistency, Protocol
from aa_plugins.hosts import config_path
from aa_plugins.hosts.interface import Network, Record, Request, Sample


class Detector(Network):
    """The detector of a config, built when it is first asked for."""

    task = "instance"

    def __init__(self, request: Request) -> None:
        request.refuse_all_but_configs()
        self.config, self.request = config_path(request.network), request
        self.name, self.weights = self.config.stem, request.weights
        if request.weights is not None:
            evaluate.check(self.config, request.weights, request.data_root, request.overrides)

    @cached_property
    def model(self) -> nn.Module:
        model = evaluate.build_detector(self.config, self.request.overrides)
        if self.weights is not None:
            load_detectron2_weights(model, str(self.weights))
        return model.eval()

    @property
    def core(self) -> nn.Module:
        return self.model.backbone

    def inputs(self) -> Iterator[tuple[str | int, torch.Tensor]]:
        request = self.request
        for image in evaluate.test_images(self.config, request.data_root, request.overrides):
            yield id_of(image), image["image"]

    def samples(self, protocol: Protocol) -> list[Sample]:
        tests = self._tests
        return [
            Sample(id_of(row), str(row["file_name"]), partial(tests.load, index))
            for index, row in enumerate(tests.rows)
        ]

    def scorer(self, protocol: Protocol) -> InstanceConsistency:
        return InstanceConsistency(protocol, evaluate.classes_of(self.model))

    @cached_property
    def _tests(self) -> evaluate.TestSet:
        request = self.request
        return evaluate.test_set(self.config, request.data_root, request.overrides)

    def trainable(self) -> InstancesOf:
        return trainable(self.model)

    def prepared(self, image: np.ndarray) -> torch.Tensor:
        return evaluate.prepared(self._mapper, image)

    @cached_property
    def _mapper(self) -> DatasetMapper:
        return evaluate.mapper_of(self.config, self.request.overrides)

    @cached_property
    def stride(self) -> int:
        return total_stride(self.model)

    def protocol(self) -> dict[str, Any]:
        return evaluate.protocol_of(self.config, self.request.overrides)

    def example(self) -> torch.Tensor:
        return torch.zeros(1, 3, 224, 224, device=self.model.device)

    @torch.no_grad()
    def predict(self, views: Iterable[torch.Tensor]) -> Iterator[dict[str, Any]]:
        for view in views:
            height, width = view.shape[-2:]
            (found,) = self.model([{"image": view, "height": height, "width": width}])
            yield prediction(found["instances"])

    def measure(
        self, protocol: Protocol, folder: str | Path, resume: bool = False, processes: int = 1
    ) -> list[Record]:
        if self.weights is None:
            raise ValueError(f"{self.request.network} has no weights to measure: name them")
        options = (self.request.data_root, self.request.overrides, resume, processes)
        return evaluate.evaluate(self.config, self.weights, protocol, folder, *options)


def load(request: Request) -> Detector:
    """The detector of a config; with weights, what is wrong with its inputs is found now."""
    return Detector(request)
