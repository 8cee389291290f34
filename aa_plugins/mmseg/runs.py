"""From a config file to a runner of mmengine: overrides, checks, weights."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from aa_plugins.checkpoints import existing
from aa_plugins.mmseg import checkpoints  # noqa: F401  the loader that runs no code
from aa_plugins.surgery import load_plain_or_converted

DATALOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def load_config(
    config_file: str | Path,
    work_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    data_root: str | Path | None = None,
) -> Config:
    """Read a config of MMSegmentation and apply what the command line says.

    Args:
        work_dir: where logs and checkpoints go; `work_dirs/<name of the config>` by default.
        overrides: `key=value` with dotted keys, as mmengine's `--cfg-options`.
        data_root: the folder of every data set of the config.

    Raises:
        FileNotFoundError: where the folder of a data set is missing.
    """
    cfg = Config.fromfile(str(config_file))
    cfg.merge_from_dict(read_overrides(overrides))
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(config_file).stem)
    for loader, dataset in _datasets(cfg):
        if data_root is not None:
            dataset.data_root = str(data_root)
        root = dataset.get("data_root") or "."
        if not Path(root).is_dir():
            raise FileNotFoundError(
                f"no folder {root}, the data_root of {loader}: put the data there, or name its "
                "folder with --data-root"
            )
    if not torch.cuda.is_available():
        for loader in DATALOADERS:
            if loader in cfg:
                cfg[loader].pin_memory = False
        cfg.sync_bn = None  # torch's SyncBatchNorm trains on GPUs only
    return cfg


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Dotted keys and values of `key=value`, as mmengine's `--cfg-options` reads them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("overrides", nargs="*", action=DictAction)
    return parser.parse_args(list(overrides)).overrides or {}


def build_runner(cfg: Config, weights: str | Path | None = None) -> Runner:
    """A runner whose model holds `weights`, audited key by key.

    Raises:
        ValueError: for weights of another architecture.
    """
    if cfg.get("launcher", "none") != "none" and not torch.cuda.is_available():
        # mmengine's own set-up of several processes takes a GPU for granted.
        torch.distributed.init_process_group("gloo")
        cfg.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None}
    runner = Runner.from_cfg(cfg)
    if weights is not None:
        fresh = load_plain_or_converted(unwrapped(runner.model), weights)
        if fresh:
            runner.logger.warning(
                f"{weights} holds no filters: {len(fresh)} keep their start (first: {fresh[0]}); "
                "what is measured is a swap without training"
            )
    return runner


def identity_of(cfg: Config, weights: str | Path) -> dict[str, str]:
    """Hashes of the model and of its weights, by which a resumed evaluation knows its records."""
    model = hashlib.sha256(str(cfg.model).encode()).hexdigest()
    return {
        "model": model[:16],
        "weights": hashlib.sha256(existing(weights).read_bytes()).hexdigest()[:16],
    }


def unwrapped(model: nn.Module) -> nn.Module:
    """The segmentor behind mmengine's wrapper for several processes, if there is one."""
    return model.module if is_model_wrapper(model) else model


def _datasets(cfg: Config) -> Iterator[tuple[str, ConfigDict]]:
    """Every data set of the config, inside of wrappers too, with the name of its loader."""

    def leaves(dataset: ConfigDict) -> Iterator[ConfigDict]:
        inner: Sequence[ConfigDict] = dataset.get("datasets") or [dataset.get("dataset")]
        if inner == [None]:
            yield dataset
        else:
            for child in inner:
                yield from leaves(child)

    for loader in DATALOADERS:
        if cfg.get(loader) is not None:
            for dataset in leaves(cfg[loader].dataset):
                yield loader, dataset
