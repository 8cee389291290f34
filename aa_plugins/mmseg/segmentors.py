"""Segmentors of MMSegmentation, asked about views of an image as they are tested."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmseg.models.segmentors import DepthEstimator
from mmseg.structures import SegDataSample
from torch import nn

from aa_plugins.evaluation.checks import require_finite
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.stride import total_stride
from aa_plugins.evaluation.views import ViewPlan, extract


def unwrapped(model: nn.Module) -> nn.Module:
    """The segmentor behind mmengine's wrapper for several processes, if there is one."""
    return model.module if is_model_wrapper(model) else model


def check_segmentor(model: nn.Module, classes: int | None = None) -> None:
    """Refuse what can't be asked for the classes of views.

    Args:
        classes: of the data set.

    Raises:
        ValueError: for another kind of network, or a head of other classes.
    """
    name = type(model).__name__
    if isinstance(model, DepthEstimator) or not all(
        hasattr(model, method) for method in ("inference", "encode_decode", "num_classes")
    ):
        raise ValueError(
            f"shift consistency is measured of segmentors that predict classes, such as "
            f"EncoderDecoder, and {name} isn't one: take ShiftConsistencyHook and "
            "ShiftConsistencyMetric out of the config"
        )
    if classes is not None and model.num_classes != classes:
        raise ValueError(
            f"the head of {name} has {model.num_classes} classes, the data set {classes}: set "
            f"model.decode_head.num_classes={classes} (and that of auxiliary heads)"
        )


def stride_of(model: nn.Module) -> int:
    """S of a segmentor: the largest stride of a map that its prediction depends on, at least 2.

    Measured on a copy without values, on which nothing is computed; where that doesn't run, as
    with a forward pass that looks at values, on the network itself.

    Raises:
        ValueError: where it can't be measured.
    """
    with _without_checkpointing(model):
        try:
            twin = _without_values(model)
            return max(2, total_stride(twin, partial(_logits, twin), size=1024))
        except Exception:  # of many kinds: what can't do without values fails in its own way
            pass
        try:
            return max(2, total_stride(model, partial(_logits, model)))
        except ValueError:
            raise
        except Exception as error:  # a network of one fixed size, which fails in its own way
            line = " ".join(str(error).split())[:150]
            raise ValueError(
                f"{type(model).__name__} doesn't run on 128×128 and 256×256 pixels, by which its "
                f"total stride is measured ({type(error).__name__}: {line}): state it, such as "
                "protocol=dict(stride=32)"
            ) from error


def protocol_for(model: nn.Module, fields: Mapping[str, Any]) -> Protocol:
    """The protocol of these fields at the segmentor's own stride, if they name none.

    Raises:
        ValueError: where they name one that isn't a multiple of the segmentor's own.
    """
    stated = fields.get("stride")
    try:
        own = stride_of(model)
    except ValueError:
        if stated is None:
            raise
        own = stated  # taken on trust
    if stated is not None and stated % own:
        raise ValueError(
            f"the protocol says stride={stated}, but the prediction of {type(model).__name__} "
            f"depends on maps of stride {own}: leave stride out, or give a multiple of {own}"
        )
    return Protocol.from_dict({**fields, "stride": own if stated is None else stated})


def network_input(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """What the network gets of an image, (C, H, W), without padding: a view is a part of it."""
    batch = {"inputs": [image], "data_samples": [SegDataSample()]}
    padded = model.data_preprocessor(batch, False)["inputs"][0]
    return padded[:, : image.shape[-2], : image.shape[-1]]  # the host pads below and to the right


def predict_views(
    model: nn.Module, pixels: torch.Tensor, plan: ViewPlan, view_batch: int
) -> Iterator[torch.Tensor]:
    """Class probabilities (C, h, w) of each view of an image, in the plan's order.

    Each view is run as the model is tested: whole, or by sliding windows (`test_cfg.mode`). A head
    with a single channel and a threshold gives labels (h, w), as in the host's own test.

    Args:
        model: a segmentor, in eval mode.
        pixels: (3, H, W), the network's input.
        view_batch: views run in one forward pass.
    """
    for start in range(0, len(plan.views), view_batch):
        views = plan.views[start : start + view_batch]
        batch = torch.stack([extract(pixels, view) for view in views])
        yield from predict_batch(model, batch, plan.image_id)


def predict_batch(model: nn.Module, batch: torch.Tensor, image_id: str | int = "") -> torch.Tensor:
    """Of views (V, 3, h, w) of a network's input: class probabilities (V, C, h, w), or labels."""
    logits = model.inference(batch, _metas(batch))
    if logits.shape[1] > 1:
        return logits.softmax(1)
    require_finite(logits, image_id)
    return (logits[:, 0].sigmoid() > model.decode_head.threshold).long()


def conversion_of(model: nn.Module) -> str:
    """One line: which filters the network has, or that nothing was converted."""
    reports = {
        name: module.aa_report
        for name, module in model.named_modules()
        if hasattr(module, "aa_report")
    }
    filtered = {name: report for name, report in reports.items() if report.sites}
    if not filtered:
        return (
            f"nothing was converted: {type(model).__name__} has no anti-aliasing filter (a "
            "backbone such as AAResNetV1c or AATIMMBackbone with aa=dict(filter=...) has)"
        )
    return "; ".join(
        f"converted: {name or type(model).__name__} has {len(report.sites)} filters "
        f"({report.config.filter}), {len(report.skipped)} reductions left alone"
        for name, report in filtered.items()
    )


def _logits(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    return model.encode_decode(image, _metas(image))


def _without_values(model: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes alone."""
    tensors = [*model.parameters(), *model.buffers()]
    shapes = {}
    for tensor in tensors:
        shape = tensor.detach().to("meta")
        shapes[id(tensor)] = nn.Parameter(shape) if isinstance(tensor, nn.Parameter) else shape
    return copy.deepcopy(model, shapes)


def _metas(batch: torch.Tensor) -> list[dict[str, Any]]:
    size = tuple(batch.shape[-2:])
    return [
        {"ori_shape": size, "img_shape": size, "pad_shape": size, "padding_size": [0, 0, 0, 0]}
        for _ in batch
    ]


@contextmanager
def _without_checkpointing(model: nn.Module) -> Iterator[None]:
    """Activations that are computed anew on the way back hide what the output depends on."""
    changed = [module for module in model.modules() if getattr(module, "with_cp", False)]
    for module in changed:
        module.with_cp = False
    try:
        yield
    finally:
        for module in changed:
            module.with_cp = True
