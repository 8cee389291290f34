"""Shift consistency of instances in Detectron2's own evaluation: a wrapper, and an evaluator.

An evaluator sees predictions, never the model; so the wrapper runs the shifted views of an image,
cropped after the resize, and the evaluator scores them one at a time as they come.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import nn

from aa_plugins.detectron2.datasets import CheckedMapper
from aa_plugins.evaluation.instance import InstanceConsistency, summarise
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import RecordWriter, read_records
from aa_plugins.evaluation.views import ViewPlan, extract

logger = logging.getLogger(__name__)

HEADLINES = ("mAISC", "pooled", "zou", "worst", "class_flips", "lost", "found", "aliasing_loss")


class ShiftedInference(nn.Module):
    """A detector that is asked about all views of an image instead of the image.

    Args:
        model: takes and gives what Detectron2's models do.
        protocol: which views.
        view_batch: views run in one forward pass.
    """

    def __init__(self, model: nn.Module, protocol: Protocol, view_batch: int = 4) -> None:
        super().__init__()
        self.model = model
        self.protocol = protocol
        self.view_batch = view_batch

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """For each image its `plan` and `views`, an iterator of the views' predictions.

        The views run as the iterator is read. An image too small for the protocol has a `skipped`
        instead, with the reason.
        """
        outputs = []
        for image in batched_inputs:
            try:
                plan = self.protocol.plan(*image["image"].shape[-2:], image["image_id"])
            except ValueError as error:
                outputs.append({"skipped": str(error)})
            else:
                outputs.append({"plan": plan, "views": self._predictions(image["image"], plan)})
        return outputs

    def _predictions(self, pixels: torch.Tensor, plan: ViewPlan) -> Iterator[dict[str, Any]]:
        size = {"height": plan.crop.height, "width": plan.crop.width}
        for start in range(0, len(plan.views), self.view_batch):
            views = plan.views[start : start + self.view_batch]
            inputs = [{"image": extract(pixels, view), **size} for view in views]
            for output in self.model(inputs):
                yield _prediction(output["instances"])


class ShiftConsistencyEvaluator(DatasetEvaluator):
    """mAISC for masks and boxes, of a model inside `ShiftedInference`.

    The record of each image is on disk when the image is done; nothing is kept in memory. Images
    that are too small for the protocol are left out, named and counted.

    Args:
        protocol: that of the wrapper.
        num_classes: of the model.
        output_dir: for records and summary.json.
        identity: what must be the same on resuming, such as a hash of the weights.
        resume: keep the images that an interrupted run finished.
    """

    def __init__(
        self,
        protocol: Protocol,
        num_classes: int,
        output_dir: str | Path,
        identity: dict[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        self.folder = Path(output_dir)
        self.scorer = InstanceConsistency(protocol, num_classes)
        self.identity = {**(identity or {}), "classes": num_classes}
        self.resume = resume
        self.writer: RecordWriter | None = None
        self.skipped: dict[str | int, str] = {}

    def reset(self) -> None:
        """Open this process's file of records."""
        self.close()
        self.skipped = {}
        place = (comm.get_rank(), comm.get_world_size())
        protocol = self.scorer.protocol
        self.writer = RecordWriter(self.folder, protocol, self.identity, *place, resume=self.resume)
        comm.synchronize()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Score the views of each image that isn't done yet; one record an image."""
        for image, output in zip(inputs, outputs):
            image_id = image["image_id"]
            if "skipped" in output:
                self.skipped[image_id] = output["skipped"]
                logger.warning(f"left out: {output['skipped']}")
            elif image_id not in self.writer.done:
                truth = _truth(image["instances"]) if "instances" in image else None
                record = self.scorer.score(output["plan"], output["views"], truth)
                self.writer.append(record)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Headline numbers in percent, on the main process; everything goes to summary.json."""
        self.close()
        skipped = {k: v for found in comm.all_gather(self.skipped) for k, v in found.items()}
        if not comm.is_main_process():
            return {}
        try:
            summary = summarise(read_records(self.folder)[1])
        except ValueError as error:
            reason = next(iter(skipped.values()), str(error))
            raise ValueError(f"no image was measured: {reason}") from error
        summary["counts"]["skipped_images"] = len(skipped)
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=1))
        return {
            f"shift_{kind}": _headlines(summary[kind])
            for kind in ("box", "mask")
            if kind in summary
        }

    def close(self) -> None:
        """Close the file of records."""
        if self.writer is not None:
            self.writer.close()


class TruthMapper(CheckedMapper):
    """A test-time mapper that keeps the ground truth, crowds too, in pixels of the input."""

    @classmethod
    def of(cls, mapper: DatasetMapper) -> TruthMapper:
        """With the transforms and the format of a test-time mapper."""
        return cls(
            is_train=True,
            augmentations=mapper.augmentations.augs,
            image_format=mapper.image_format,
            use_instance_mask=True,
            instance_mask_format="bitmask",
        )

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: Any, image_shape: tuple[int, int]
    ) -> None:
        annotations = [
            utils.transform_instance_annotations(annotation, transforms, image_shape)
            for annotation in dataset_dict.pop("annotations")
        ]
        instances = utils.annotations_to_instances(annotations, image_shape, "bitmask")
        crowd = [bool(annotation.get("iscrowd", 0)) for annotation in annotations]
        instances.gt_crowd = torch.tensor(crowd, dtype=torch.bool)
        dataset_dict["instances"] = instances


def _prediction(instances: Instances) -> dict[str, Any]:
    masks = instances.pred_masks.cpu().numpy() if instances.has("pred_masks") else None
    return {
        "scores": instances.scores,
        "labels": instances.pred_classes,
        "boxes": instances.pred_boxes.tensor,
        "masks": masks,
    }


def _truth(instances: Instances) -> dict[str, Any]:
    if not len(instances):
        empty = np.zeros((0, *instances.image_size), bool)
        return {"labels": [], "boxes": np.zeros((0, 4)), "masks": empty}
    return {
        "labels": instances.gt_classes,
        "boxes": instances.gt_boxes.tensor,
        "masks": instances.gt_masks.tensor.numpy() if instances.has("gt_masks") else None,
        "crowd": instances.gt_crowd,
    }


def _headlines(summary: dict[str, Any]) -> dict[str, float]:
    """What Detectron2 prints: values by name."""
    found = {f"AP_{view}": entry["value"] for view, entry in summary.get("AP", {}).items()}
    found |= {name: summary[name]["value"] for name in HEADLINES if name in summary}
    controls = summary.get("controls", {})
    return found | {name: entry["value"] for name, entry in controls.items()}
