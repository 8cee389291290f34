"""Shift consistency of instances in Detectron2's own evaluation: a wrapper, and an evaluator.

An evaluator sees predictions, never the model; so the wrapper runs the shifted views of an image,
cropped after the resize, and the evaluator scores them one at a time as they come.
"""

from __future__ import annotations

import json
import math
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
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import nn

from aa_plugins.detectron2.datasets import CheckedMapper
from aa_plugins.evaluation.bad_images import BadImage, LeftOut, attempt
from aa_plugins.evaluation.instance import INSTANCE, InstanceConsistency
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import RecordWriter, read_records
from aa_plugins.evaluation.views import ViewPlan, extract
from aa_plugins.report.plots import surface_pixels

LEFT_OUT = "left_out"
HEADLINES = ("mAISC", "pooled", "zou", "worst", "class_flips", "lost", "found", "aliasing_loss")


class ShiftedInference(nn.Module):
    """A detector that is asked about all views of an image instead of the image.

    Args:
        model: takes and gives what Detectron2's models do.
        protocol: which views.
        view_batch: views run in one forward pass.
        whole: also ask about the image itself, for other evaluators of the same pass.
    """

    def __init__(
        self, model: nn.Module, protocol: Protocol, view_batch: int = 4, whole: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.protocol = protocol
        self.view_batch = view_batch
        self.whole = whole
        self.train(model.training)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """For each image its `plan` and `views`, an iterator of the views' predictions.

        The views run as the iterator is read. An image that can't be read, or is too small for the
        protocol, has a `left_out` instead, with the reason.
        """
        return [self._of(image) for image in batched_inputs]

    def _of(self, image: dict[str, Any]) -> dict[str, Any]:
        if LEFT_OUT in image:
            return {LEFT_OUT: image[LEFT_OUT]}
        found = dict(self.model([image])[0]) if self.whole else {}
        pixels, image_id = image["image"], id_of(image)
        plan = attempt(
            image_id, _file(image), lambda: self.protocol.plan(*pixels.shape[-2:], image_id)
        )
        if isinstance(plan, BadImage):
            return {**found, LEFT_OUT: plan.reason}
        return {**found, "plan": plan, "views": self._predictions(image, plan)}

    def _predictions(self, image: dict[str, Any], plan: ViewPlan) -> Iterator[dict[str, Any]]:
        known = {"file_name": _file(image), "image_id": plan.image_id}
        size = {"height": plan.crop.height, "width": plan.crop.width}
        for start in range(0, len(plan.views), self.view_batch):
            views = plan.views[start : start + self.view_batch]
            inputs = [{**known, "image": extract(image["image"], view), **size} for view in views]
            for output in self.model(inputs):
                yield prediction(output["instances"])


class ShiftConsistencyEvaluator(DatasetEvaluator):
    """mAISC for masks and boxes, of a model inside `ShiftedInference`.

    The record of each image is on disk when the image is done; nothing is kept in memory. Images
    that can't be read or are too small for the protocol are left out, named and counted. With a
    loader whose mapper is a `TruthMapper` there is AP of the views, too.

    Args:
        protocol: that of the wrapper.
        num_classes: of the model.
        output_dir: for records and summary.json; one for each data set.
        identity: what must be the same on resuming, as `aa_plugins.evaluation.run_identity` says.
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
        self.left_out = LeftOut()

    def reset(self) -> None:
        """Open this process's file of records."""
        self.close()
        protocol = self.scorer.protocol
        self.writer = RecordWriter(
            self.folder,
            protocol,
            self.identity,
            comm.get_rank(),
            comm.get_world_size(),
            resume=self.resume,
            task="instance",
        )
        self.left_out = LeftOut(self.writer)
        comm.synchronize()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Score the views of each image that isn't done yet; one record an image.

        Raises:
            ValueError: for the outputs of a model outside of `ShiftedInference`, or two images with
                one id.
        """
        for image, output in zip(inputs, outputs):
            image_id = id_of(image)
            if image_id in self.writer.done:
                continue
            if LEFT_OUT in output:
                self.left_out.add(BadImage(image_id, output[LEFT_OUT]))
            elif "views" not in output:
                raise ValueError(
                    "ShiftConsistencyEvaluator scores views: evaluate ShiftedInference(model, "
                    "protocol) in place of the model"
                )
            else:
                truth = truth_of(image["instances"]) if "instances" in image else None
                self.writer.append(self.scorer.score(output["plan"], output["views"], truth))

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Headline numbers in percent, on the main process; everything goes to summary.json.

        What no image defines is NaN, as Detectron2 has it.

        Raises:
            ValueError: where no image was measured, with the first reason.
        """
        self.close()
        comm.synchronize()
        if not comm.is_main_process():
            return {}
        try:
            header, records = read_records(self.folder)
        except ValueError as error:
            raise ValueError(f"no image was measured: {error}") from error
        summary = INSTANCE.summarise(records)
        summary["counts"]["skipped_images"] = len(header["left_out"])
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=1))
        kinds = [kind for kind in ("box", "mask") if kind in summary]
        for kind in kinds if has_event_storage() else ():  # of a training that tests meanwhile
            pixels = surface_pixels(summary[kind], kind)
            if pixels is not None:
                get_event_storage().put_image(f"shift_{kind}/shift", pixels.transpose(2, 0, 1))
        return {f"shift_{kind}": _headlines(summary[kind]) for kind in kinds}

    def close(self) -> None:
        """Close the file of records."""
        if self.writer is not None:
            self.writer.close()


class TruthMapper(CheckedMapper):
    """A test-time mapper that keeps the ground truth, crowds too, in pixels of the input.

    An image that can't be read, or whose size isn't that of its annotations, gives its id and a
    `left_out` with the reason: `ShiftedInference` doesn't ask the model about it.
    """

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

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """What a model takes, with `instances`; or `left_out`."""
        known = {"image_id": id_of(dataset_dict), "file_name": _file(dataset_dict)}
        read = super().__call__
        found = attempt(*known.values(), lambda: read({**dataset_dict, **known}))
        return {**known, LEFT_OUT: found.reason} if isinstance(found, BadImage) else found

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


def id_of(image: dict[str, Any]) -> str | int:
    """The id of an image, or its file where its data set has none."""
    return image["image_id"] if "image_id" in image else _file(image)


def _file(image: dict[str, Any]) -> str:
    return str(image.get("file_name", "its file"))


def prediction(instances: Instances) -> dict[str, Any]:
    masks = instances.pred_masks.cpu().numpy() if instances.has("pred_masks") else None
    return {
        "scores": instances.scores,
        "labels": instances.pred_classes,
        "boxes": instances.pred_boxes.tensor,
        "masks": masks,
    }


def truth_of(instances: Instances) -> dict[str, Any]:
    """Ground truth as the scorer takes it."""
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
    entries = {f"AP_{view}": entry for view, entry in summary.get("AP", {}).items()}
    entries |= {name: summary[name] for name in HEADLINES if name in summary}
    entries |= summary.get("controls", {})
    values = {name: entry["value"] for name, entry in entries.items()}
    return {name: math.nan if value is None else value for name, value in values.items()}
