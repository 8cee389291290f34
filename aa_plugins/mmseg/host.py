"""Configs of MMSegmentation as networks, tested on the config's own test set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmseg.registry import DATASETS, TRANSFORMS
from torch import nn

import aa_plugins.mmseg  # noqa: F401  only registration
from aa_plugins.evaluation import Protocol, SemanticConsistency
from aa_plugins.hosts import config_path
from aa_plugins.hosts.interface import Network, Record, Request, Sample
from aa_plugins.hosts.module import Logits
from aa_plugins.mmseg import evaluate
from aa_plugins.mmseg.entries import type_name
from aa_plugins.mmseg.runs import load_config, read_config
from aa_plugins.mmseg.segmentors import network_input, predict_batch, stride_of
from aa_plugins.mmseg.test_set import TestSet
from aa_plugins.surgery import load_plain_or_converted

# Steps of a pipeline that read files, or look at what is in them.
FILES = ("LoadImage", "LoadAnnotations", "CheckLabels")


class Segmentor(Network):
    """The segmentor of a config, built when it is first asked for."""

    task = "semantic"

    def __init__(self, request: Request) -> None:
        request.refuse_all_but_configs()
        self.config, self.request = config_path(request.network), request
        self.name, self.weights = self.config.stem, request.weights
        if request.weights is not None:
            evaluate.check_inputs(
                self.config, request.weights, request.data_root, request.overrides
            )

    @cached_property
    def model(self) -> nn.Module:
        model = evaluate.build_segmentor(self._cfg)
        if self.request.weights is not None:
            load_plain_or_converted(model, self.request.weights)
        return model.to(self.request.device)

    @cached_property
    def stride(self) -> int:
        return stride_of(self.model)

    def protocol(self) -> dict[str, Any]:
        return evaluate.protocol_of(self.config, self.request.overrides)

    def example(self) -> torch.Tensor:
        size = self._cfg.model.data_preprocessor.get("size") or (512, 512)
        return torch.zeros(1, 3, *size, device=self.request.device)

    def inputs(self) -> Iterator[tuple[str | int, torch.Tensor]]:
        request = self.request
        cfg = load_config(self.config, "out/mmengine", request.overrides, request.data_root)
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        for index in range(len(dataset)):
            sample = dataset[index]
            path = dataset.get_data_info(index)["img_path"]
            yield path, network_input(self.model, sample["inputs"])

    def samples(self, protocol: Protocol) -> list[Sample]:
        tests = self._tests
        return [
            Sample(image_id, path, partial(tests.load, self.model, index))
            for index, (path, image_id) in enumerate(tests.ids.items())
        ]

    def scorer(self, protocol: Protocol) -> SemanticConsistency:
        options = evaluate.metric_options(self._cfg)
        options.pop("view_batch", None)
        return SemanticConsistency(protocol, self._tests.num_classes, **options)

    @cached_property
    def _tests(self) -> TestSet:
        request = self.request
        cfg = load_config(self.config, "out/mmengine", request.overrides, request.data_root)
        return TestSet(DATASETS.build(cfg.test_dataloader.dataset))

    def trainable(self) -> Logits:
        return Logits(self.model)

    def prepared(self, image: np.ndarray) -> torch.Tensor:
        steps = [s for s in self._cfg.test_pipeline if not type_name(s).startswith(FILES)]
        size = image.shape[:2]
        sample = {"img": np.ascontiguousarray(image[..., ::-1]), "seg_fields": []}
        sample |= {"img_shape": size, "ori_shape": size}
        inputs = Compose([TRANSFORMS.build(step) for step in steps])(sample)["inputs"]
        return network_input(self.model, inputs)

    @torch.no_grad()
    def predict(self, views: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        for view in views:
            yield predict_batch(self.model, view[None].to(self.request.device))[0]

    def measure(
        self, protocol: Protocol, folder: str | Path, resume: bool = False, processes: int = 1
    ) -> list[Record]:
        if processes > 1:
            raise ValueError(f"{processes} processes: {self.name} is measured in one")
        if self.weights is None:
            raise ValueError(f"{self.request.network} has no weights to measure: name them")
        options = (self.request.data_root, self.request.overrides, resume)
        return evaluate.evaluate(self.config, self.weights, protocol, folder, *options)

    @cached_property
    def _cfg(self) -> Config:
        return read_config(self.config, self.request.overrides)


def load(request: Request) -> Segmentor:
    """The segmentor of a config; with data, what is wrong with its inputs is found now."""
    return Segmentor(request)
