"""Shift consistency of one model of Detectron2 on its test set, resumable, in any number of
processes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader
from detectron2.data import transforms as T
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import nn
from tqdm import tqdm

from aa_plugins.detectron2.checks import (
    check_classes,
    check_datasets,
    check_ids,
    images_of,
    num_classes,
)
from aa_plugins.detectron2.config import instantiated, load_lazy, load_yaml, pairs_of
from aa_plugins.detectron2.consistency import (
    ShiftConsistencyEvaluator,
    ShiftedInference,
    TruthMapper,
    id_of,
)
from aa_plugins.detectron2.conversion import check_conversion, conversion
from aa_plugins.detectron2.datasets import names_of, register_coco_paths, use_data_root
from aa_plugins.detectron2.processes import check_processes, launch, set_up_logging
from aa_plugins.detectron2.stride import total_stride
from aa_plugins.detectron2.test_set import TestSet
from aa_plugins.detectron2.weights import load_detectron2_weights, local_path
from aa_plugins.diagnostics.cost import count_macs
from aa_plugins.diagnostics.filters import watch
from aa_plugins.diagnostics.finite import finite
from aa_plugins.evaluation.identity import dataset_ids, run_identity
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import read_records

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What an evaluation needs of a config, yaml or LazyConfig alike.

    Attributes:
        dataset: Detectron2's dicts; with several data sets, ids begin with the name of theirs.
        pipeline: text that says what happens to an image before the network, and after it.
    """

    model: nn.Module
    dataset: list[dict[str, Any]]
    mapper: DatasetMapper
    num_workers: int
    text: str
    pipeline: str


def protocol_of(config_file: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of the protocol that fits a config's model: its total stride.

    Args:
        overrides: KEY=VALUE.
    """
    return {"stride": total_stride(build_detector(config_file, overrides))}


def check(
    config_file: str | Path,
    weights: str | Path,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
    processes: int = 1,
) -> None:
    """Raise as `evaluate` would for what is wrong with its inputs, without measuring anything.

    Raises:
        ValueError: for a config, a data set or a network that can't be measured.
        FileNotFoundError: where data or weights are missing.
    """
    check_processes(processes)
    local_path(weights)
    if data_root is not None:
        use_data_root(data_root)
    classes_of(_task(*_load(config_file, overrides)).model)


def build_detector(config_file: str | Path, overrides: Sequence[str] = ()) -> nn.Module:
    """The network of a config, untrained."""
    return _model_of(*_load(config_file, overrides))


def test_images(
    config_file: str | Path, data_root: str | Path | None = None, overrides: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """What the network of a config gets of each image of its test set."""
    if data_root is not None:
        use_data_root(data_root)
    task = _task(*_load(config_file, overrides))
    for row in task.dataset:
        yield {**row, **task.mapper(copy.deepcopy(row))}


def test_set(
    config_file: str | Path, data_root: str | Path | None = None, overrides: Sequence[str] = ()
) -> TestSet:
    """The test set of a config."""
    if data_root is not None:
        use_data_root(data_root)
    task = _task(*_load(config_file, overrides))
    return TestSet(task.dataset, TruthMapper.of(task.mapper))


def mapper_of(config_file: str | Path, overrides: Sequence[str] = ()) -> DatasetMapper:
    """What prepares the test images of a config."""
    return _mapper(*_load(config_file, overrides))


def prepared(mapper: DatasetMapper, image: np.ndarray) -> torch.Tensor:
    """An image (H, W, 3) in RGB as the network of a mapper's config gets those of its test set:
    (3, H', W') in the order of channels that it was trained with."""
    if mapper.image_format == "BGR":
        image = image[..., ::-1]
    prepared = T.AugInput(np.ascontiguousarray(image))
    mapper.augmentations(prepared)
    return torch.from_numpy(np.ascontiguousarray(prepared.image.transpose(2, 0, 1)))


def size_of(config_file: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Parameters of a config's network, and multiply-accumulates of its backbone at 224×224.

    Args:
        overrides: KEY=VALUE.
    """
    model = build_detector(config_file, overrides).eval()
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
        use_data_root(data_root)
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
    check_processes(processes)
    local_path(weights)
    if data_root is not None:
        use_data_root(data_root)
    arguments = (str(config_file), str(weights), protocol, str(folder), tuple(overrides), resume)
    launch(_evaluate, processes, *arguments)
    return read_records(folder)[1]


def _evaluate(
    config_file: str,
    weights: str,
    protocol: Protocol,
    folder: str,
    overrides: tuple[str, ...],
    resume: bool,
) -> None:
    task = _task(*_load(config_file, overrides))
    classes = classes_of(task.model)
    set_up_logging(folder)
    logger.info(conversion(task.model))
    untrained = load_detectron2_weights(task.model, weights)
    _check_stride(task.model, protocol)
    identity = {
        **run_identity(
            model=task.text,
            weights=local_path(weights),
            files=(row["file_name"] for row in task.dataset),
            data=[_described(row) for row in task.dataset],
            pipeline=task.pipeline,
            software=("detectron2", "torchvision"),
        ),
        "untrained_filters": len(untrained),
    }
    loader = build_detection_test_loader(
        dataset=task.dataset, mapper=TruthMapper.of(task.mapper), num_workers=task.num_workers
    )
    evaluator = ShiftConsistencyEvaluator(protocol, classes, folder, identity, resume)
    with finite(task.model, names_of):
        bar = tqdm(loader, desc=Path(folder).name, disable=not comm.is_main_process())
        inference_on_dataset(ShiftedInference(task.model, protocol), bar, evaluator)
    logger.info(f"{conversion(task.model)}; records are in {folder}")


def classes_of(model: nn.Module) -> int:
    """The classes of instances; ValueError, saying what to do, for what finds no instances."""
    classes = num_classes(model)
    if classes is None:
        raise ValueError(
            f"{type(model).__name__} finds no instances with classes, which mAISC compares: "
            "measure a GeneralizedRCNN, PanopticFPN (its instances), RetinaNet or FCOS here, and "
            "semantic segmentation with MMSegmentation or aa_plugins.SemanticConsistency"
        )
    return classes


def _check_stride(model: nn.Module, protocol: Protocol) -> None:
    stride = total_stride(model)
    if stride not in (protocol.stride, *protocol.other_strides):
        logger.warning(
            f"the protocol's stride is {protocol.stride}, but the network's total stride is "
            f"{stride}: give stride={stride}, or multiples of it are no multiples of the protocol's"
        )


def _described(row: dict[str, Any]) -> dict[str, Any]:
    """An image's annotations, wherever its file lies."""
    return {**row, "file_name": Path(row["file_name"]).name}


def _load(config_file: str | Path, overrides: Sequence[str]) -> tuple[Any, bool]:
    """The config, and whether it is a yaml file."""
    if Path(config_file).suffix == ".py":
        return load_lazy(str(config_file), list(overrides)), False
    return load_yaml(str(config_file), pairs_of(overrides)), True


def _model_of(cfg: Any, yaml: bool) -> nn.Module:
    if not yaml:
        return instantiated(cfg.model, "model").to(cfg.train.device)
    model = build_model(cfg)
    check_conversion(model, cfg)
    return model


def _task(cfg: Any, yaml: bool) -> Task:
    if yaml:
        register_coco_paths(cfg)
        check_datasets(cfg.DATASETS.TEST)
        images = {name: images_of(name) for name in cfg.DATASETS.TEST}
        workers = cfg.DATALOADER.NUM_WORKERS
        texts = _texts(cfg)
    else:
        test = cfg.dataloader.test
        workers = test.num_workers
        texts = str(cfg.model), str(test.mapper)
        images = _lazy_images(test.dataset)
        for name in images:
            check_ids(name)
    if not any(images.values()):
        raise ValueError("no test set: name one in DATASETS.TEST or dataloader.test.dataset")
    ids = dataset_ids({name: [id_of(row) for row in rows] for name, rows in images.items()})
    dataset = [
        {**row, "image_id": image_id}
        for name, rows in images.items()
        for row, image_id in zip(rows, ids[name])
    ]
    model = _model_of(cfg, yaml)
    check_classes(list(images), model)
    return Task(model, dataset, _mapper(cfg, yaml), workers, *texts)


def _mapper(cfg: Any, yaml: bool) -> DatasetMapper:
    """From a row of the test set to what the network gets."""
    if yaml:
        return DatasetMapper(cfg, is_train=False)
    return instantiated(cfg.dataloader.test.mapper, "dataloader.test.mapper")


def _lazy_images(node: DictConfig) -> dict[str, list[dict[str, Any]]]:
    """Images by the name of their data set, of a callable that takes one or several names."""
    names = node.get("names")
    if names is None or isinstance(names, str):
        name = names or node.get("name", "")
        return {name: list(instantiated(node, "dataloader.test.dataset"))}
    single = {name: OmegaConf.merge(node, {"names": name}) for name in names}
    return {n: list(instantiated(one, "dataloader.test.dataset")) for n, one in single.items()}


def _texts(cfg: CfgNode) -> tuple[str, str]:
    """What of a config decides on predictions; where it runs and is stored doesn't."""
    model = cfg.MODEL.clone()
    model.defrost()
    model.DEVICE, model.WEIGHTS = "", ""
    return model.dump(), f"{cfg.INPUT.dump()}{cfg.TEST.dump()}"
