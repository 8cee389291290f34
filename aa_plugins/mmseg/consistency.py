"""Shift consistency in MMSegmentation's own test run: a metric, and the hook that lends it a model.

A metric sees predictions, never the model; but the shifted views of an image can only be run
where the model is. So the hook hands the model to the metric before the test, and the metric runs
the views of each image, cropped after the pipeline's resize and batched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
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
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import nn

from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import RecordWriter, read_records
from aa_plugins.evaluation.semantic import SemanticConsistency, summarise
from aa_plugins.evaluation.views import ViewPlan, extract
from aa_plugins.mmseg.runs import unwrapped

HEADLINES = ("mIoU", "mASSC", "fidelity", "aliasing_loss")


@METRICS.register_module()
class ShiftConsistencyMetric(BaseMetric):
    """mASSC of a segmentor, with its controls and 95 % intervals; needs ShiftConsistencyHook.

    Args:
        protocol: fields of `aa_plugins.evaluation.protocol.Protocol`.
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
        protocol: Mapping[str, Any],
        view_batch: int = 8,
        ignore_index: int = 255,
        background: int | None = None,
        out_dir: str | None = None,
        resume: bool = False,
        identity: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.protocol = Protocol.from_dict(dict(protocol))
        self.view_batch = view_batch
        self.ignore_index = ignore_index
        self.background = background
        self.out_dir = out_dir
        self.resume = resume
        self.identity = dict(identity or {})
        self.model: nn.Module | None = None

    def start(self, model: nn.Module, out_dir: str | Path) -> None:
        """Get ready for a run over a data set: the model to ask, and the records to write.

        Raises:
            ValueError: on resuming, where the records there come from another run.
        """
        self.model = unwrapped(model)
        self.out_dir = self.out_dir or str(out_dir)
        folder, identity = Path(self.out_dir), {**self.identity, "classes": self.num_classes}
        place = (get_rank(), get_world_size())
        self.writer = RecordWriter(folder, self.protocol, identity, *place, resume=self.resume)
        records = read_records(folder)[1] if self.writer.done else []
        self.finished = {record["image_id"]: record for record in records}
        self.scorer = SemanticConsistency(
            self.protocol, self.num_classes, self.ignore_index, self.background
        )

    @property
    def num_classes(self) -> int:
        return len(self.dataset_meta["classes"])

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Run and score the views of every image; one record an image."""
        if self.model is None:
            raise RuntimeError(
                "ShiftConsistencyMetric has no model to run views with: add "
                'custom_hooks = [dict(type="ShiftConsistencyHook")] to the config'
            )
        for image, sample in zip(data_batch["inputs"], data_samples):
            image_id = image_id_of(sample["img_path"])
            if image_id not in self.finished:
                record = self._record(image_id, image, sample)
                self.writer.append(record)
                self.finished[image_id] = record
            self.results.append(self.finished[image_id])

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Headline numbers in percent; everything goes to `summary.json`."""
        summary = summarise(results)
        Path(self.out_dir, "summary.json").write_text(json.dumps(summary, indent=1))
        metrics = {}
        for name in HEADLINES:
            if name in summary:
                entry = summary[name]
                metrics[name] = round(entry["value"], 2)
                if entry["low"] is not None:
                    metrics[f"{name}_low"] = round(entry["low"], 2)
                    metrics[f"{name}_high"] = round(entry["high"], 2)
        for name, entry in summary.get("controls", {}).items():
            metrics[name] = round(entry["value"], 2)
        return metrics

    def _record(self, image_id: str, image: torch.Tensor, sample: dict[str, Any]) -> dict[str, Any]:
        batch = self.model.data_preprocessor({"inputs": [image], "data_samples": None}, False)
        pixels = batch["inputs"][0]
        plan = self.protocol.plan(*pixels.shape[-2:], image_id)
        truth = sample["gt_sem_seg"]["data"].cpu()
        at_input = F.interpolate(truth[None].float(), pixels.shape[-2:], mode="nearest-exact")
        predictions = predict_views(self.model, pixels, plan, self.view_batch)
        record = self.scorer.score(plan, predictions, at_input[0, 0].long())
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
    """Lends the model to every ShiftConsistencyMetric of the test."""

    def before_test_epoch(self, runner: Runner) -> None:
        for metric in runner.test_loop.evaluator.metrics:
            if isinstance(metric, ShiftConsistencyMetric):
                metric.start(runner.model, Path(runner.work_dir) / "shift_consistency")


def image_id_of(path: str) -> str:
    """An image's id that doesn't depend on where the data lies: its folder and its name."""
    return "/".join(Path(path).parts[-2:])


def predict_views(
    model: nn.Module, pixels: torch.Tensor, plan: ViewPlan, view_batch: int
) -> Iterator[torch.Tensor]:
    """Class probabilities (C, h, w) of each view of an image, in the plan's order.

    Args:
        model: a segmentor, in eval mode.
        pixels: (3, H, W), the network's input.
        view_batch: views run in one forward pass.
    """
    height, width = plan.crop.height, plan.crop.width
    meta = {
        "ori_shape": (height, width),
        "img_shape": (height, width),
        "pad_shape": (height, width),
        "padding_size": [0, 0, 0, 0],
    }
    for start in range(0, len(plan.views), view_batch):
        views = plan.views[start : start + view_batch]
        batch = torch.stack([extract(pixels, view) for view in views])
        yield from model.encode_decode(batch, [meta] * len(views)).softmax(1)


def metric_of(cfg: Config) -> ConfigDict | None:
    """The ShiftConsistencyMetric of a config's test, if it has one."""
    evaluators = cfg.get("test_evaluator") or []
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        if evaluator["type"] == ShiftConsistencyMetric.__name__:
            return evaluator
    return None
