"""Shift consistency of one model of MMSegmentation, image by image, resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from tqdm import tqdm

from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import read_records
from aa_plugins.mmseg.consistency import ShiftConsistencyMetric, image_id_of
from aa_plugins.mmseg.runs import build_runner, load_config


def protocol_of(config_file: str | Path) -> dict[str, Any]:
    """The fields of the protocol that a config's ShiftConsistencyMetric asks for.

    Raises:
        ValueError: where the config has no such metric.
    """
    return dict(_metric_of(Config.fromfile(str(config_file)), config_file)["protocol"])


def evaluate(
    config_file: str | Path,
    weights: str | Path,
    protocol: Protocol,
    folder: str | Path,
    data_root: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> list[dict[str, Any]]:
    """Records of every image of the config's test set, in `folder` and returned.

    Raises:
        ValueError: for weights of another architecture, an image smaller than its crop, a
            prediction that isn't finite (the image named), or records of another run on resuming.
        FileNotFoundError: where data or weights are missing.
    """
    cfg = load_config(config_file, Path(folder) / "mmengine", overrides, data_root)
    options = dict(_metric_of(cfg, config_file))
    options.pop("type")
    options.update(protocol=protocol.to_dict(), out_dir=str(folder), resume=resume)
    options["identity"] = {
        "weights": hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16],
        "model": hashlib.sha256(str(cfg.model).encode()).hexdigest()[:16],
    }
    for key in ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"):
        cfg.pop(key, None)
    for key in ("val_dataloader", "val_cfg", "val_evaluator"):
        cfg.pop(key, None)
    runner = build_runner(cfg, weights)
    metric = ShiftConsistencyMetric(**options)
    loader = runner.build_dataloader(cfg.test_dataloader)
    dataset = loader.dataset
    metric.dataset_meta = dataset.metainfo
    metric.start(runner.model, folder)
    runner.model.eval()
    todo = [
        index
        for index in range(len(dataset))
        if image_id_of(dataset.get_data_info(index)["img_path"]) not in metric.finished
    ]
    with torch.no_grad(), tqdm(total=len(dataset), initial=len(dataset) - len(todo)) as bar:
        for index in todo:
            batch = loader.collate_fn([dataset[index]])
            samples = runner.model.test_step(batch)
            metric.process(batch, [sample.to_dict() for sample in samples])
            bar.update()
    return read_records(folder)[1]


def _metric_of(cfg: Config, config_file: str | Path) -> dict[str, Any]:
    evaluators = cfg.test_evaluator
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        if evaluator["type"] == ShiftConsistencyMetric.__name__:
            return evaluator
    raise ValueError(
        f"{config_file} has no ShiftConsistencyMetric in its test_evaluator: add "
        '"./_base_/shift_consistency.py" to its _base_'
    )
