"""Shift consistency in MMSegmentation's own test run: a metric, and the hook that lends it a model.

A metric sees predictions, never the model; but the shifted views of an image can only be run
where the model is. So the hook hands the model to the metric before the test, and the metric runs
the views of each image, cropped after the pipeline's resize and batched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_rank, get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.runner.loops import BaseLoop
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import nn

from aa_plugins.config import check_positive_int
from aa_plugins.evaluation.bad_images import BadImage, LeftOut
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import RecordWriter, read_records
from aa_plugins.evaluation.semantic import SEMANTIC, SemanticConsistency
from aa_plugins.evaluation.sequences import fitting
from aa_plugins.mmseg.entries import type_name
from aa_plugins.mmseg.images import ids_of
from aa_plugins.mmseg.segmentors import (
    check_segmentor,
    network_input,
    predict_views,
    protocol_for,
    unwrapped,
)
from aa_plugins.report.plots import surface_pixels

HEADLINES = ("mIoU", "mASSC", "fidelity", "aliasing_loss")


@METRICS.register_module()
class ShiftConsistencyMetric(BaseMetric):
    """mASSC of a segmentor, with its controls and 95 % intervals; ShiftConsistencyHook brings it.

    Labels are read where the data set has them: without, there is no mIoU and no fidelity. A data
    set whose images are frames says so by `metainfo=dict(sequences=dict(rule="camvid"))`, with a
    rule of `aa_plugins.evaluation.sequences`: intervals are over blocks of frames then.

    Args:
        protocol: fields of `aa_plugins.evaluation.protocol.Protocol`; `stride` is the network's
            own unless it is given.
        view_batch: views run in one forward pass.
        ignore_index: label of pixels without ground truth.
        background: the class that the foreground variant leaves out.
        out_dir: folder of the records, one JSON line an image, and of summary.json; by default
            `shift_consistency` in the runner's work directory.
        resume: keep the records that an interrupted run with the same settings left there.
        identity: what else must be the same on resuming, such as a hash of the weights.
    """

    default_prefix = "shift"

    def __init__(
        self,
        protocol: Mapping[str, Any] | None = None,
        view_batch: int = 8,
        ignore_index: int = 255,
        background: int | None = None,
        out_dir: str | None = None,
        resume: bool = False,
        identity: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fields = dict(protocol or {})
        Protocol.from_dict(self.fields)  # a wrong field is told now, not after a training
        check_positive_int("view_batch", view_batch)
        self.view_batch = view_batch
        self.ignore_index = ignore_index
        self.background = background
        self.out_dir = out_dir
        self.resume = resume
        self.identity = dict(identity or {})
        self.protocol: Protocol | None = None
        self.model: nn.Module | None = None

    def prepare(self, model: nn.Module) -> None:
        """Get to know the model; may be called before a training, to be refused before it.

        Raises:
            ValueError: for a network that isn't a segmentor of the data set's classes, or a
                protocol of another stride than the network's.
        """
        self.model = unwrapped(model)
        check_segmentor(self.model, self.num_classes)
        if self.protocol is None:
            self.protocol = protocol_for(self.model, self.fields)
        self.scorer = SemanticConsistency(
            self.protocol, self.num_classes, self.ignore_index, self.background
        )

    def start(
        self,
        model: nn.Module,
        out_dir: str | Path,
        ids: Mapping[str, str],
        bad: Sequence[BadImage] = (),
    ) -> None:
        """Get ready for a run over a data set: the model to ask, and the records to write.

        Args:
            ids: of the images, by path.
            bad: images that were left out of the data set.

        Raises:
            ValueError: as `prepare`; on resuming, where the records there come from another run.
        """
        self.prepare(model)
        self.ids = dict(ids)
        folder = Path(self.out_dir or out_dir)
        identity = {**self.identity, "classes": self.num_classes}
        rule = (self.dataset_meta.get("sequences") or {}).get("rule")
        place = (get_rank(), get_world_size())
        self.writer = RecordWriter(
            folder,
            self.protocol,
            identity,
            *place,
            resume=self.resume,
            task="semantic",
            sequences=fitting(rule, self.ids.values()),
        )
        self.folder = folder
        self.left_out = LeftOut(self.writer)
        for image in bad if get_rank() == 0 else ():
            if image.image_id not in self.writer.done:
                self.left_out.add(image)
        records = read_records(folder)[1] if self.writer.done else []
        self.finished = {record["image_id"]: record for record in records}

    @property
    def num_classes(self) -> int:
        return len(self.dataset_meta["classes"])

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Run and score the views of every image; one record an image."""
        if self.model is None:
            raise ValueError(
                "ShiftConsistencyMetric has no model to run views with: add "
                'custom_hooks = [dict(type="ShiftConsistencyHook")] to the config'
            )
        for image, sample in zip(data_batch["inputs"], data_samples):
            image_id = self.ids[sample["img_path"]]
            if image_id in self.left_out.reasons:
                continue
            if image_id not in self.finished:
                record = self._record(image_id, image, sample)
                if record is None:
                    continue
                record = self.writer.append(record)
                self.finished[image_id] = record
            self.results.append(self.finished[image_id])

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Headline numbers in percent, NaN where undefined; all goes to `summary.json`."""
        # Several processes share images out in equal numbers, so that one may have two of them.
        records = {record["image_id"]: record for record in results}
        if not records:
            self.left_out.require_some(len(self.left_out.reasons))
        summary = SEMANTIC.summarise(list(records.values()))
        Path(self.folder, "summary.json").write_text(json.dumps(summary, indent=1))
        metrics = {}
        for name in HEADLINES:
            if name in summary:
                entry = summary[name]
                metrics[name] = _rounded(entry["value"])
                if entry["low"] is not None:
                    metrics[f"{name}_low"] = _rounded(entry["low"])
                    metrics[f"{name}_high"] = _rounded(entry["high"])
        for name, entry in summary.get("controls", {}).items():
            metrics[name] = _rounded(entry["value"])
        return metrics

    def _record(
        self, image_id: str, image: torch.Tensor, sample: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The record of an image, None where it is left out: too small, or of misfit labels."""
        pixels = network_input(self.model, image)
        prepared = self.left_out.read(
            image_id,
            sample["img_path"],
            lambda: (self.protocol.plan(*pixels.shape[-2:], image_id), _truth(image_id, sample)),
        )
        if prepared is None:
            return None
        plan, truth = prepared
        at_input = None if truth is None else _resized(truth, pixels.shape[-2:])
        predictions = predict_views(self.model, pixels, plan, self.view_batch)
        record = self.scorer.score(plan, predictions, at_input)
        if truth is None:
            return record
        # The mIoU beside it is the host's: the whole image, at the size of its labels.
        whole = sample["pred_sem_seg"]["data"].cpu().squeeze(0)
        areas = IoUMetric.intersect_and_union(
            whole, truth.squeeze(0).to(whole), self.num_classes, self.ignore_index
        )
        record["iou"] = {
            name: area.long().tolist() for name, area in zip(("intersection", "union"), areas)
        }
        return record


@HOOKS.register_module()
class ShiftConsistencyHook(Hook):
    """Measures shift consistency in every test: one line in any config of MMSegmentation.

    It lends the model to every ShiftConsistencyMetric of a validation or test. A test that has
    none gets one.

    Args:
        options: of that ShiftConsistencyMetric.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        ShiftConsistencyMetric(**options)  # wrong options are told now, not after a training

    def before_val_epoch(self, runner: Runner) -> None:
        self._start(runner, runner.val_loop, "shift_consistency_val")

    def before_test_epoch(self, runner: Runner) -> None:
        self.metrics_of_test(runner)
        self._start(runner, runner.test_loop, "shift_consistency")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._draw(runner, runner.val_loop)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._draw(runner, runner.test_loop)

    def metrics_of_test(self, runner: Runner) -> list[ShiftConsistencyMetric]:
        """Those of the runner's test, one of which this hook may bring.

        Raises:
            ValueError: where both the hook and the test's evaluator say how to measure.
        """
        evaluator = runner.test_loop.evaluator
        found = [m for m in evaluator.metrics if isinstance(m, ShiftConsistencyMetric)]
        if not found:
            found = [ShiftConsistencyMetric(**self.options)]
            found[0].dataset_meta = runner.test_loop.dataloader.dataset.metainfo
            evaluator.metrics.extend(found)
            self.options = {}
        elif self.options:
            raise ValueError(
                "both ShiftConsistencyHook and a ShiftConsistencyMetric of test_evaluator say how "
                "to measure: give options to one of them"
            )
        return found

    def _draw(self, runner: Runner, loop: BaseLoop) -> None:
        """Agreement over shifts, to all of the runner's visual backends."""
        for metric in loop.evaluator.metrics:
            if isinstance(metric, ShiftConsistencyMetric) and get_rank() == 0:
                summary = json.loads(Path(metric.folder, "summary.json").read_text())
                pixels = surface_pixels(summary, "agreement")
                if pixels is not None:
                    runner.visualizer.add_image("shift_agreement", pixels, step=runner.iter)

    def _start(self, runner: Runner, loop: BaseLoop, folder: str) -> None:
        dataset = loop.dataloader.dataset
        for metric in loop.evaluator.metrics:
            if isinstance(metric, ShiftConsistencyMetric):
                ids, bad = getattr(dataset, "checked", None) or (ids_of(dataset), [])
                metric.start(runner.model, Path(runner.work_dir) / folder, ids, bad)


def metric_of(cfg: Config) -> ConfigDict | None:
    """The options of a config's ShiftConsistencyMetric: in its test's evaluator, or of the hook."""
    names = (ShiftConsistencyMetric.__name__, ShiftConsistencyHook.__name__)
    for found in (cfg.get("test_evaluator"), cfg.get("custom_hooks")):
        for entry in found if isinstance(found, (list, tuple)) else [found] if found else []:
            if type_name(entry) in names:
                return entry
    return None


def _truth(image_id: str, sample: dict[str, Any]) -> torch.Tensor | None:
    """The labels of an image, (1, H, W), None where the data set has none.

    Raises:
        BadImage: where they don't fit the image, neither as read nor as the network gets it.
    """
    if "gt_sem_seg" not in sample:
        return None
    truth = sample["gt_sem_seg"]["data"].cpu()
    sizes = [tuple(sample[name][:2]) for name in ("ori_shape", "img_shape") if name in sample]
    if truth.ndim != 3 or len(truth) != 1 or tuple(truth.shape[1:]) not in sizes:
        raise BadImage(
            image_id,
            f"{sample.get('seg_map_path')} has shape {tuple(truth.shape)}, its image {sizes[0]}: "
            "give labels of the image's size, class numbers in one channel",
        )
    return truth


def truth_at_input(
    image_id: str, sample: dict[str, Any], size: tuple[int, int]
) -> torch.Tensor | None:
    """The labels (H, W) of an image at the size of the network's input, None where it has none.

    Raises:
        BadImage: where they don't fit the image.
    """
    truth = _truth(image_id, sample)
    return None if truth is None else _resized(truth, size)


def _resized(truth: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Labels (1, H, W) at another size, (H', W')."""
    return F.interpolate(truth[None].float(), size, mode="nearest-exact")[0, 0].long()


def _rounded(value: float | None) -> float:
    return math.nan if value is None else round(value, 2)
