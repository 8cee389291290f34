"""Shift consistency of one model of MMSegmentation, image by image, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from torch import nn
from tqdm import tqdm

from aa_plugins.config import check_positive_int
from aa_plugins.diagnostics.cost import count_macs
from aa_plugins.diagnostics.filters import watch
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import read_records
from aa_plugins.mmseg.checks import check_run
from aa_plugins.mmseg.consistency import ShiftConsistencyMetric, metric_of
from aa_plugins.mmseg.entries import type_name
from aa_plugins.mmseg.errors import config_faults, run_faults
from aa_plugins.mmseg.runs import (
    build_runner,
    identity_of,
    load_config,
    read_config,
    without_downloads,
)
from aa_plugins.mmseg.segmentors import network_input, predict_views, protocol_for, stride_of
from aa_plugins.surgery import load_plain_or_converted

TRAINING = (
    *("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"),
    *("val_dataloader", "val_cfg", "val_evaluator"),
)
# Fields of the metric that say how to measure; the rest says where.
HOW = ("view_batch", "ignore_index", "background")


def protocol_of(config_file: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of the protocol that a config asks for, at the total stride of its network.

    Args:
        overrides: KEY=VALUE.

    Raises:
        ValueError: where the config states another stride than its network has.
    """
    cfg = read_config(config_file, overrides)
    fields = dict((metric_of(cfg) or {}).get("protocol") or {})
    return {**fields, "stride": protocol_for(build_segmentor(cfg), fields).stride}


def metric_options(cfg: Config) -> dict[str, Any]:
    """How a config's ShiftConsistencyMetric measures, where it has one and says."""
    return {name: value for name, value in (metric_of(cfg) or {}).items() if name in HOW}


def check_inputs(
    config_file: str | Path,
    weights: str | Path,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Refuse what `evaluate` would refuse later: config, data and weights; nothing is run.

    Raises:
        ValueError, OSError: in one line, for what is wrong.
    """
    cfg = load_config(config_file, "out/mmengine", overrides, data_root)
    load_plain_or_converted(build_segmentor(cfg), weights)
    with config_faults(config_file):
        DATASETS.build(cfg.test_dataloader.dataset)


def build_segmentor(cfg: Config) -> nn.Module:
    """The network of a config, untrained, in eval mode."""
    init_default_scope("mmseg")
    without_downloads(cfg.model)
    with config_faults(cfg.filename):
        return MODELS.build(cfg.model).eval()


def size_of(config_file: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Parameters of a config's network, and multiply-accumulates of a view of its crop size.

    Args:
        overrides: KEY=VALUE.
    """
    cfg = read_config(config_file, overrides)
    height, width = cfg.model.data_preprocessor.size
    model = build_segmentor(cfg)
    with torch.no_grad(), count_macs(model) as macs:
        model(torch.zeros(1, 3, height, width), mode="tensor")
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "macs": macs[0], "input": [height, width]}


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
        images: how many.
    """
    check_positive_int("images", images)
    cfg = load_config(config_file, "out/mmengine", overrides, data_root)
    model = build_segmentor(cfg)
    load_plain_or_converted(model, weights)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    with watch(model) as found:
        for index in np.linspace(0, len(dataset) - 1, images, dtype=int):
            sample = dataset[int(index)]
            batch = {"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]}
            model.test_step(batch)
    return found


def evaluate(
    config_file: str | Path,
    weights: str | Path,
    protocol: Protocol,
    folder: str | Path,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
) -> list[dict[str, Any]]:
    """Records of every image of the config's test set, in `folder` and returned.

    Raises:
        ValueError: for weights of another architecture, an image smaller than its crop, a
            prediction that isn't finite (the image named), or records of another run on resuming.
        FileNotFoundError: where data or weights are missing.
    """
    cfg = load_config(config_file, Path(folder) / "mmengine", overrides, data_root)
    options = metric_options(cfg)
    for key in TRAINING:
        cfg.pop(key, None)
    cfg.load_from = None
    with run_faults():
        runner = build_runner(cfg, weights)
        check_run(runner)
        loader = runner.test_loop.dataloader
        dataset = loader.dataset
        metric = ShiftConsistencyMetric(protocol=protocol.to_dict(), resume=resume, **options)
        metric.identity = identity_of(cfg, weights, dataset)
        metric.dataset_meta = dataset.metainfo
        metric.start(runner.model, folder, *dataset.checked)
        runner.model.eval()
        paths = [dataset.get_data_info(index)["img_path"] for index in range(len(dataset))]
        done = {*metric.finished, *metric.left_out.reasons}
        todo = [index for index, path in enumerate(paths) if metric.ids[path] not in done]
        with torch.no_grad(), tqdm(total=len(paths), initial=len(paths) - len(todo)) as bar:
            for index in todo:
                path = paths[index]
                sample = metric.left_out.read(metric.ids[path], path, lambda i=index: dataset[i])
                if sample is not None:
                    batch = loader.collate_fn([sample])
                    samples = runner.model.test_step(batch)
                    metric.process(batch, [sample.to_dict() for sample in samples])
                bar.update()
        metric.left_out.require_some(len(metric.ids))
    return read_records(folder)[1]


@dataclass(frozen=True)
class ViewPair:
    """What a model says of two views of one image, cut to their overlap of H × W pixels.

    image: (H, W, 3) uint8, RGB. labels: the two label maps, (H, W). truth: (H, W) labels.
    """

    image: np.ndarray
    labels: tuple[np.ndarray, np.ndarray]
    truth: np.ndarray
    class_names: tuple[str, ...]
    palette: np.ndarray


def predict_pair(
    config_file: str | Path,
    weights: str | Path,
    index: int,
    shift: tuple[int, int] = (1, 1),
    data_root: str | Path | None = None,
) -> ViewPair:
    """Predictions of a config's model on an image of its test set and on the same image moved.

    Args:
        index: of the image in the test set.
        shift: (dy, dx) in pixels of the network's input.

    Raises:
        ValueError: for an index without an image, or a shift that the image leaves no room for.
    """
    cfg = load_config(config_file, "out/mmengine", data_root=data_root)
    cfg.test_dataloader.dataset.pipeline = _labels_at_input(cfg.test_dataloader.dataset.pipeline)
    model = build_segmentor(cfg)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    load_plain_or_converted(model, weights)
    if not 0 <= index < len(dataset):
        raise ValueError(f"no image {index} in the test set: give 0 to {len(dataset) - 1}")
    sample = dataset[index]
    pixels = network_input(model, sample["inputs"])
    protocol = Protocol(stride=stride_of(model), shifts=(shift,), controls=False)
    plan = protocol.plan(*pixels.shape[-2:], index)
    with torch.no_grad():
        labels = [view.argmax(0) for view in predict_views(model, pixels, plan, view_batch=2)]
    pair = plan.pairs[0]
    region = (..., *pair.region.slices)
    return ViewPair(
        image=sample["inputs"].flip(0)[region].permute(1, 2, 0).numpy(),
        labels=tuple(
            labels[view][box.slices].numpy()
            for view, box in ((pair.a, pair.box_a), (pair.b, pair.box_b))
        ),
        truth=sample["data_samples"].gt_sem_seg.data[0][region].numpy(),
        class_names=tuple(dataset.metainfo["classes"]),
        palette=np.array(dataset.metainfo["palette"], np.uint8),
    )


def _labels_at_input(pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pipeline with its resize after the labels are loaded, so that it resizes them too."""
    late = {"Resize": 1, "PackSegInputs": 2}
    return sorted(pipeline, key=lambda step: late.get(type_name(step), 0))
