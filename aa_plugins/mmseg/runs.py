"""From a config file to a runner of mmengine: overrides, additions, weights."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner

from aa_plugins.checkpoints import existing
from aa_plugins.evaluation.identity import fingerprint, run_identity
from aa_plugins.mmseg import checkpoints  # noqa: F401  the loader that runs no code
from aa_plugins.mmseg.entries import dicts_in, type_name
from aa_plugins.mmseg.errors import config_faults
from aa_plugins.mmseg.hooks import FinitePredictionsHook, MainProcessLoggerHook
from aa_plugins.mmseg.images import CheckFiles, files_of
from aa_plugins.mmseg.labels import CheckLabels
from aa_plugins.mmseg.segmentors import conversion_of, unwrapped
from aa_plugins.surgery import load_plain_or_converted

DATALOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
OURS = "aa_plugins.mmseg"
# What mmengine reads of a config beside the arguments of Runner.
OTHER_KEYS = (
    *("custom_imports", "sync_bn", "find_unused_parameters", "model_wrapper_cfg", "compile"),
    *("tta_model", "tta_pipeline", "activation_checkpointing", "runner_type"),
)


def load_config(
    config_file: str | Path,
    work_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    data_root: str | Path | None = None,
) -> Config:
    """Read a config of MMSegmentation, apply what the command line says, and add our checks.

    Args:
        work_dir: where logs and checkpoints go; `work_dirs/<name of the config>` by default.
        overrides: `key=value` with dotted keys, as mmengine's `--cfg-options`.
        data_root: the folder of every data set of the config.

    Raises:
        ValueError: for a config or an override that can't be read, in one line.
        FileNotFoundError: where the folder of a data set is missing.
    """
    cfg = read_config(config_file, overrides)
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
        if dataset.get("pipeline"):
            dataset.pipeline = _checked(dataset.pipeline, cfg.model, loader == DATALOADERS[0])
    if not torch.cuda.is_available():
        for loader in DATALOADERS:
            if cfg.get(loader) is not None:
                cfg[loader].pin_memory = False
        cfg.sync_bn = None  # torch's SyncBatchNorm trains on GPUs only
        for entry in dicts_in(cfg.model):
            if entry.get("type") == "SyncBN":
                entry["type"] = "BN"
    return cfg


def read_config(config_file: str | Path, overrides: Sequence[str] = ()) -> Config:
    """A config of MMSegmentation as it is written, but for the overrides.

    Raises:
        ValueError: for one that can't be read, or an override of what isn't there.
    """
    with config_faults(config_file):
        cfg = Config.fromfile(str(config_file))
        values = read_overrides(overrides)
        for key in values:
            _check_key(key.split(".")[0], cfg)
        cfg.merge_from_dict(values)
        if not isinstance(cfg.get("model"), Mapping):
            raise ValueError(f"{config_file} defines no model: is it a config to train with?")
        imports = cfg.get("custom_imports") or {"imports": []}
        named = imports["imports"]
        named = [named] if isinstance(named, str) else [*named]
        if OURS not in named:  # the checks below are ours
            cfg.custom_imports = {**imports, "imports": [*named, OURS]}
    return cfg


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Dotted keys and values of `key=value`, as mmengine's `--cfg-options` reads them.

    Raises:
        ValueError: for one without "=".
    """
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"--cfg-options {override}: give each option as KEY=VALUE")
    parser = argparse.ArgumentParser()
    parser.add_argument("overrides", nargs="*", action=DictAction)
    return parser.parse_args(list(overrides)).overrides or {}


def build_runner(cfg: Config, weights: str | Path | None = None) -> Runner:
    """A runner whose model holds `weights`, audited key by key; its log says what is converted.

    Raises:
        ValueError: for a config that can't be built, or weights of another architecture.
    """
    if weights is not None:
        existing(weights)
        without_downloads(cfg.model)
    if cfg.get("launcher", "none") != "none" and not torch.cuda.is_available():
        # mmengine's own set-up of several processes takes a GPU for granted.
        torch.distributed.init_process_group("gloo")
        cfg.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None}
    with config_faults(cfg.filename):
        hooks = dict(cfg.get("default_hooks") or {})
        logger = hooks.get("logger") or {"type": "LoggerHook"}
        if type_name(logger) == "LoggerHook":
            hooks["logger"] = {**logger, "type": MainProcessLoggerHook.__name__}
        cfg.default_hooks = hooks
        finite = {"type": FinitePredictionsHook.__name__}
        cfg.custom_hooks = [*(cfg.get("custom_hooks") or ()), finite]
        runner = Runner.from_cfg(cfg)
    if weights is not None:
        fresh = load_plain_or_converted(unwrapped(runner.model), weights)
        if fresh:
            runner.logger.warning(
                f"{weights} holds no filters: {len(fresh)} keep their start (first: {fresh[0]}); "
                "what is measured is a swap without training"
            )
    runner.logger.info(conversion_of(unwrapped(runner.model)))
    return runner


def identity_of(cfg: Config, weights: str | Path, dataset: BaseDataset) -> dict[str, Any]:
    """What a resumed evaluation must have in common with the run that it goes on with: the model,
    its weights, the images, their labels and what is done to them."""
    model = {key: value for key, value in cfg.model.items() if key != "pretrained"}
    described = cfg.test_dataloader.dataset
    return run_identity(
        model=str(model),
        weights=existing(weights),
        files=files_of(dataset),
        data=[dataset.metainfo.get("classes"), len(dataset)],
        pipeline=fingerprint(str([entry.get("pipeline") for entry in _leaves(described)])),
        software=("mmcv", "mmengine", "mmsegmentation"),
    )


def without_downloads(model: Mapping[str, Any]) -> None:
    """Take pretrained weights, which others would replace, out of a model's config."""
    for entry in dicts_in(model):
        if "pretrained" in entry:
            entry["pretrained"] = False if isinstance(entry["pretrained"], bool) else None


def _checked(
    pipeline: Sequence[Mapping[str, Any]], model: Mapping[str, Any], training: bool
) -> list[Mapping[str, Any]]:
    """A pipeline that stops at labels that no class has, and in training at unusable files, too
    (of tests, files are looked at before they start)."""
    names = [type_name(step) for step in pipeline]
    head = model.get("decode_head") or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    steps = list(pipeline)
    if CheckLabels.__name__ not in names and "LoadAnnotations" in names and "num_classes" in head:
        check = {"type": CheckLabels.__name__, "num_classes": head["num_classes"]}
        check["ignore_index"] = head.get("ignore_index", 255)
        steps.insert(names.index("LoadAnnotations") + 1, check)
    if training and CheckFiles.__name__ not in names:
        steps.insert(0, {"type": CheckFiles.__name__})
    return steps


def _check_key(key: str, cfg: Config) -> None:
    known = {*cfg, *inspect.signature(Runner.__init__).parameters, *OTHER_KEYS}
    if key not in known:
        close = get_close_matches(key, sorted(known), n=1)
        guess = f": did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"--cfg-options {key}: the config has no {key!r}{guess or ' to change'}")


def _datasets(cfg: Config) -> Iterator[tuple[str, ConfigDict]]:
    """Every data set of the config, inside of wrappers too, with the name of its loader."""
    for loader in DATALOADERS:
        if cfg.get(loader) is not None:
            for dataset in _leaves(cfg[loader].dataset):
                yield loader, dataset


def _leaves(dataset: ConfigDict) -> Iterator[ConfigDict]:
    inner: Sequence[ConfigDict] = dataset.get("datasets") or [dataset.get("dataset")]
    if inner == [None]:
        yield dataset
    else:
        for child in inner:
            yield from _leaves(child)
