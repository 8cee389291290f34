"""All that a run needs, looked at before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.model import BaseModule, PretrainedInit
from mmengine.runner import Runner
from mmseg.evaluation import IoUMetric
from mmseg.models.decode_heads import STDCHead
from mmseg.registry import DATASETS, OPTIMIZERS
from torch import nn

from aa_plugins.checkpoints import check_finite, read_checkpoint, weights_in
from aa_plugins.mmseg.consistency import ShiftConsistencyHook, ShiftConsistencyMetric
from aa_plugins.mmseg.errors import config_faults, unregistered
from aa_plugins.mmseg.images import check_files
from aa_plugins.mmseg.segmentors import network_input, unwrapped
from aa_plugins.surgery import filter_keys

HEADS = ("decode_head.", "auxiliary_head.")


def check_run(runner: Runner, training: bool = False) -> None:
    """Build what the runner would build later, and refuse what would fail then.

    Images of tests that can't be used are left out and named.

    Args:
        training: whether it trains before it tests.

    Raises:
        ValueError: in one line, for what is wrong.
    """
    with config_faults(runner.cfg.filename):
        for loader in (
            ("_val_dataloader", "_test_dataloader") if training else ("_test_dataloader",)
        ):
            described = getattr(runner, loader)
            if isinstance(described, dict):
                dataset = _usable(described["dataset"])
                setattr(runner, loader, {**described, "dataset": dataset})
        model = unwrapped(runner.model)
        tests = [runner.test_loop, runner.val_loop if training else None]
        trainings = [runner.train_loop] if training else []
        for loop in filter(None, (*trainings, *tests)):
            _check_classes(model, loop.dataloader.dataset)
        for loop in filter(None, tests):
            _check_evaluator(runner, loop)
        if training:
            check_pretrained(model)
            _check_optimizer(runner)


def check_pretrained(model: nn.Module) -> None:
    """Refuse files of weights, named by an `init_cfg`, of which nothing fits: the host would start
    from scratch.

    Raises:
        FileNotFoundError, ValueError: for what is no file of weights, or of another network's.
    """
    for name, module in model.named_modules():
        for entry in _pretrained(module):
            path = entry["checkpoint"]
            if "://" in path:
                continue
            own = module.state_dict()
            prefix = entry.get("prefix")
            start = f"{prefix}." if prefix and not prefix.endswith(".") else prefix or ""
            state = weights_in(read_checkpoint(path), [start + key for key in own], path)
            state = {key.removeprefix(start): value for key, value in state.items()}
            if not any(key in own and own[key].shape == state[key].shape for key in state):
                raise ValueError(
                    f"{path} has no weight that fits {name or type(module).__name__}, whose "
                    "init_cfg names it: is it of another architecture, or of a whole segmentor "
                    '(then give prefix="backbone.")?'
                )


def starting_state(model: nn.Module, weights: str | Path) -> tuple[dict[str, Any], list[str]]:
    """The weights of a file for a training to start from.

    Heads may be of other classes, and filters new; all else has to be there.

    Returns:
        the weights that fit, and the keys of the network that keep their start.

    Raises:
        FileNotFoundError, ValueError: for what is no file of weights, or of another architecture.
    """
    own = model.state_dict()
    state = weights_in(read_checkpoint(weights), own, weights)
    check_finite(state, own, weights)
    fits = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    left = [key for key in own if key not in fits and not key.endswith("num_batches_tracked")]
    may_differ = filter_keys(model)
    missing = [key for key in left if key not in may_differ and not key.startswith(HEADS)]
    if missing:
        raise ValueError(
            f"{weights} lacks {missing[0]!r} and {len(missing) - 1} more keys, or has them in "
            f"another shape: is it of another architecture than {type(model).__name__}? Weights "
            'of a backbone alone go into model.backbone.init_cfg=dict(type="Pretrained", '
            "checkpoint=...)"
        )
    return fits, left


def _usable(described: Any) -> Any:
    dataset = DATASETS.build(described) if isinstance(described, dict) else described
    if isinstance(dataset, (BaseDataset, ConcatDataset)):
        check_files(dataset)
    return dataset


def _check_optimizer(runner: Runner) -> None:
    described = runner.optim_wrapper
    kind = described["optimizer"]["type"] if isinstance(described, dict) else None
    if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
        raise ValueError(unregistered(kind, OPTIMIZERS.name))
    runner.optim_wrapper = runner.build_optim_wrapper(described)


def _check_classes(model: nn.Module, dataset: Any) -> None:
    classes = len((getattr(dataset, "metainfo", None) or {}).get("classes") or ())
    for name in ("decode_head", "auxiliary_head"):
        heads = getattr(model, name, None)
        heads = heads if isinstance(heads, nn.ModuleList) else [heads]
        for head in heads:
            has = getattr(head, "num_classes", None)
            if classes and has and has != classes and not isinstance(head, STDCHead):
                raise ValueError(
                    f"model.{name} has {has} classes, the data set {classes} "
                    f"({dataset.metainfo['classes'][0]}, ...): set num_classes={classes}"
                )


def _check_evaluator(runner: Runner, loop: Any) -> None:
    metrics = loop.evaluator.metrics
    hooks = [hook for hook in runner.hooks if isinstance(hook, ShiftConsistencyHook)]
    if loop is runner.test_loop and hooks:
        hooks[0].metrics_of_test(runner)
    ours = [metric for metric in metrics if isinstance(metric, ShiftConsistencyMetric)]
    if ours and not hooks:
        raise ValueError(
            "ShiftConsistencyMetric needs a model to run views with: add "
            'custom_hooks = [dict(type="ShiftConsistencyHook")] to the config'
        )
    for metric in ours:
        metric.prepare(runner.model)
    labels_needed = any(isinstance(m, IoUMetric) and not m.format_only for m in metrics)
    dataset, small = loop.dataloader.dataset, []
    for index in sorted({0, len(dataset) // 2, len(dataset) - 1}):
        sample = dataset[index]
        if labels_needed and "gt_sem_seg" not in sample["data_samples"]:
            raise ValueError(
                "the test has an IoUMetric, but its data set gives no labels: add LoadAnnotations "
                'to its pipeline, or set test_evaluator = dict(type="ShiftConsistencyMetric")'
            )
        for metric in ours:
            pixels = network_input(metric.model, sample["inputs"].to(_device(metric.model)))
            try:
                metric.protocol.plan(*pixels.shape[-2:], sample["data_samples"].img_path)
            except ValueError as error:
                small.append(error)
    if ours and len(small) == len(ours) * len({0, len(dataset) // 2, len(dataset) - 1}):
        raise small[0]


def _pretrained(module: nn.Module) -> Iterator[dict[str, Any]]:
    entries = module.init_cfg if isinstance(module, BaseModule) else None
    for entry in entries if isinstance(entries, (list, tuple)) else [entries] if entries else []:
        if entry.get("type") in ("Pretrained", PretrainedInit):
            yield entry


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
