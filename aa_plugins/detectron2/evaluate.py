"""Shift consistency of one model of Detectron2 on its test set, resumable, in any number of
processes."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2 import engine
from detectron2.config import CfgNode, instantiate
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from aa_plugins.detectron2.config import load_lazy, load_yaml
from aa_plugins.detectron2.consistency import (
    ShiftConsistencyEvaluator,
    ShiftedInference,
    TruthMapper,
)
from aa_plugins.detectron2.datasets import register_coco_paths
from aa_plugins.detectron2.weights import load_detectron2_weights
from aa_plugins.diagnostics.cost import count_macs
from aa_plugins.diagnostics.filters import watch
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import read_records
from aa_plugins.hosts import DETECTRON2_YAML, host_of


@dataclass(frozen=True)
class Task:
    """What an evaluation needs of a config, yaml or LazyConfig alike."""

    model: nn.Module
    dataset: list[dict[str, Any]]
    mapper: DatasetMapper
    num_workers: int
    text: str


def protocol_of(config_file: str | Path) -> dict[str, Any]:
    """The fields of the protocol that fits a config's model: its total stride."""
    return {"stride": total_stride(_model_of(*_load(config_file, ())))}


def total_stride(model: nn.Module) -> int:
    """S of a detector in pixels: of the coarsest map that proposals or heads read.

    A feature pyramid mixes all of its levels into each, so there S isn't less than that of the
    backbone's last stage.
    """
    shapes = model.backbone.output_shape()
    read = {*_features(model.proposal_generator), *_features(model.roi_heads)} & set(shapes)
    strides = [shapes[name].stride for name in read or shapes]
    return max([*strides, model.backbone.size_divisibility])


def size_of(config_file: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Parameters of a config's network, and multiply-accumulates of its backbone at 224×224.

    Args:
        overrides: KEY=VALUE.
    """
    model = _model_of(*_load(config_file, overrides)).eval()
    with torch.no_grad(), count_macs(model.backbone) as macs:
        model.backbone(torch.zeros(1, 3, 224, 224, device=model.device))
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "backbone_macs": macs[0], "input": [224, 224]}


def filters_at_work(
    config_file: str | Path,
    weights: str | Path,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
    images: int = 4,
) -> dict[str, dict[str, float]]:
    """What every predicted filter does on images spread over a config's test set; see `watch`.

    Args:
        overrides: KEY=VALUE.
    """
    if data_root is not None:
        os.environ["DETECTRON2_DATASETS"] = str(data_root)
    task = _task(*_load(config_file, overrides))
    load_detectron2_weights(task.model, str(weights))
    task.model.eval()
    with watch(task.model) as found:
        for index in torch.linspace(0, len(task.dataset) - 1, images).int().tolist():
            task.model([task.mapper(copy.deepcopy(task.dataset[index]))])
    return found


def evaluate(
    config_file: str | Path,
    weights: str | Path,
    protocol: Protocol,
    folder: str | Path,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    processes: int = 1,
) -> list[dict[str, Any]]:
    """Records of the images of the config's test set, in `folder` and returned.

    Args:
        data_root: in place of $DETECTRON2_DATASETS, where relative paths of datasets start.
        overrides: KEY=VALUE.
        processes: on as many GPUs, or on the CPU where there is none.

    Raises:
        ValueError: for weights of another architecture, a prediction that isn't finite (the image
            named), no image large enough, or records of another run on resuming.
        FileNotFoundError: where data or weights are missing.
    """
    if data_root is not None:
        os.environ["DETECTRON2_DATASETS"] = str(data_root)
    arguments = (str(config_file), str(weights), protocol, str(folder), tuple(overrides), resume)
    engine.launch(_evaluate, processes, dist_url="auto", args=arguments)
    return read_records(folder)[1]


def _evaluate(
    config_file: str,
    weights: str,
    protocol: Protocol,
    folder: str,
    overrides: tuple[str, ...],
    resume: bool,
) -> None:
    for name in ("detectron2", "fvcore", "aa_plugins"):
        setup_logger(folder, distributed_rank=comm.get_rank(), name=name)
    task = _task(*_load(config_file, overrides))
    untrained = load_detectron2_weights(task.model, weights)
    identity = {
        "weights": hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16],
        "config": hashlib.sha256(task.text.encode()).hexdigest()[:16],
        "untrained_filters": len(untrained),
    }
    loader = build_detection_test_loader(
        dataset=task.dataset, mapper=TruthMapper.of(task.mapper), num_workers=task.num_workers
    )
    num_classes = task.model.roi_heads.num_classes
    evaluator = ShiftConsistencyEvaluator(protocol, num_classes, folder, identity, resume)
    inference_on_dataset(ShiftedInference(task.model, protocol), loader, evaluator)


def _load(config_file: str | Path, overrides: Sequence[str]) -> tuple[Any, bool]:
    """The config, and whether it is a yaml file."""
    if host_of(config_file) != DETECTRON2_YAML:
        return load_lazy(str(config_file), list(overrides)), False
    pairs = [part for override in overrides for part in override.split("=", 1)]
    return load_yaml(str(config_file), pairs), True


def _model_of(cfg: Any, yaml: bool) -> nn.Module:
    return build_model(cfg) if yaml else instantiate(cfg.model).to(cfg.train.device)


def _task(cfg: Any, yaml: bool) -> Task:
    model = _model_of(cfg, yaml)
    if not yaml:
        test = cfg.dataloader.test
        dataset, mapper = instantiate(test.dataset), instantiate(test.mapper)
        return Task(model, dataset, mapper, test.get("num_workers", 0), str(cfg.model))
    register_coco_paths(cfg)
    return Task(
        model,
        get_detection_dataset_dicts(list(cfg.DATASETS.TEST), filter_empty=False),
        DatasetMapper(cfg, is_train=False),
        cfg.DATALOADER.NUM_WORKERS,
        _text(cfg),
    )


def _text(cfg: CfgNode) -> str:
    """What of a config decides on predictions; where it runs and is stored doesn't."""
    model = cfg.MODEL.clone()
    model.defrost()
    model.DEVICE, model.WEIGHTS = "", ""
    return f"{model.dump()}{cfg.INPUT.dump()}{cfg.DATASETS.TEST}"


def _features(part: nn.Module | None) -> tuple[str, ...]:
    """Names of the maps that proposals or heads read."""
    names = ("in_features", "box_in_features", "mask_in_features")
    return tuple(name for attribute in names for name in getattr(part, attribute, None) or ())
