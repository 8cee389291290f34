"""A segmentor that is trained to be shift consistent beside its task."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import SampleList
from torch import Tensor

from aa_plugins.evaluation.views import View
from aa_plugins.mmseg.segmentors import stride_of
from aa_plugins.training.loss import divergence
from aa_plugins.training.views import drawn_offsets, moved_views


@MODELS.register_module()
class ConsistentEncoderDecoder(EncoderDecoder):
    """mmseg's EncoderDecoder, trained on two moved views of every crop: its task's losses, their
    mean, and how far the two predictions are from their phase average. It predicts as ever.

    A step costs two passes of crops that are a stride smaller. In a config:
    ``model = dict(type="ConsistentEncoderDecoder")``.

    Args:
        consistency: weight of the term, in nats; 0 trains on moved views alone, its control.
        stride: S, within which views move; measured by default.
    """

    def __init__(
        self, *args: Any, consistency: float = 5.0, stride: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if consistency < 0:
            raise ValueError(f"consistency={consistency!r} must be 0 or more")
        if type(self.decode_head).loss is not BaseDecodeHead.loss:
            raise ValueError(
                f"ConsistentEncoderDecoder needs a head that gives its scores in training, and "
                f"{type(self.decode_head).__name__} doesn't: train it as EncoderDecoder"
            )
        self.consistency = consistency
        self.stride = stride or stride_of(self)

    def loss(self, inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of crops (N, 3, H, W), which are cut into views of a stride less.

        Sides of views are multiples of the stride, as those of images mostly are: with other sides
        a network that pads by their remainder ("same") would be trained on another grid than it is
        used on, which cost EfficientNet-Lite0 eight points of mIoU in three epochs.
        """
        height, width = (
            (side - self.stride + 1) // self.stride * self.stride for side in inputs.shape[-2:]
        )
        if min(height, width) <= self.stride:
            raise ValueError(
                f"crops of {tuple(inputs.shape[-2:])} pixels are too small to move within a "
                f"stride of {self.stride}: make crop_size larger"
            )
        moved = moved_views((height, width), drawn_offsets(2, self.stride))
        losses: dict[str, Tensor] = {}
        scores = []
        for number, (view, pixels) in enumerate(zip(moved.views, moved.inputs(inputs))):
            samples = [_of_view(sample, view) for sample in data_samples]
            features = self.extract_feat(pixels)
            logits = self.decode_head.forward(features)
            found = {
                f"decode.{name}": value
                for name, value in self.decode_head.loss_by_feat(logits, samples).items()
            }
            if self.with_auxiliary_head:
                found.update(self._auxiliary_head_forward_train(features, samples))
            for name, value in found.items():
                losses[name] = losses.get(name, 0.0) + value / len(moved.views)
            scores.append(moved.aligned(logits.float(), number))
        average = torch.stack([one.detach().softmax(1) for one in scores]).mean(0)
        apart = sum(divergence(average, one) for one in scores) / len(scores)
        return {**losses, "loss_consistency": self.consistency * apart}


def _of_view(sample: SegDataSample, view: View) -> SegDataSample:
    """A sample with the labels of a view."""
    cut = copy.copy(sample)
    labels = sample.gt_sem_seg.data[(..., *view.crop.slices)]
    cut.gt_sem_seg = type(sample.gt_sem_seg)(data=labels)
    return cut
