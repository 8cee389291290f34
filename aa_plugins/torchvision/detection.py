"""Shift consistency of torchvision's detectors, by the accumulator that the hosts share."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import get_model
from tqdm import tqdm

from aa_plugins.config import AAConfig
from aa_plugins.evaluation.instance import InstanceConsistency
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import RecordWriter, read_records
from aa_plugins.evaluation.views import ViewPlan, extract
from aa_plugins.surgery import antialias, load_plain_or_converted
from aa_plugins.torchvision.coco import CocoImages

logger = logging.getLogger(__name__)

PREFIX = "torchvision:"
OPTIONS = ("annotations", "images", "min_size", "filter", "kernel_size", "groups", "init")


def build_detector(
    name: str, num_classes: int, aa: AAConfig | Mapping[str, Any] | None = None, **options: Any
) -> nn.Module:
    """A detector of torchvision with random weights and an anti-aliased backbone.

    Args:
        name: such as maskrcnn_resnet50_fpn.
        num_classes: with the background.
        aa: AAConfig or its fields; filter="none" keeps the backbone as it is.
        options: of torchvision's own builder, such as min_size.
    """
    model = get_model(name, weights=None, weights_backbone=None, num_classes=num_classes, **options)
    antialias(model.backbone, AAConfig.of(aa))
    return model


def train(
    model: nn.Module, dataset: CocoImages, iterations: int, batch: int = 4, rate: float = 0.01
) -> None:
    """Train by plain SGD with a warm-up and clipped gradients, for a demonstration."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=1e-4)
    order = torch.Generator().manual_seed(0)
    model.train()
    for step in (bar := tqdm(range(iterations), desc="training")):
        chosen = torch.randint(len(dataset), (batch,), generator=order).tolist()
        images, targets = zip(*(dataset[index] for index in chosen))
        loss = sum(model(list(images), list(targets)).values())
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (0.1 if step > 0.8 * iterations else 1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.2f}")


def protocol_of(config: str) -> dict[str, Any]:
    """The fields of the protocol that fits: a pyramid with a pooled level has stride 64."""
    return {"stride": 64}


def evaluate(
    config: str,
    weights: str | Path,
    protocol: Protocol,
    folder: str | Path,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
) -> list[dict[str, Any]]:
    """Records of the images of a dataset, in `folder` and returned.

    Args:
        config: "torchvision:NAME", the name of the detector.
        weights: state dict of the plain or of the converted detector.
        data_root: where relative paths start.
        overrides: KEY=VALUE: `annotations` (file), `images` (folder), `min_size` (short side of
            the input in pixels) and fields of AAConfig, `filter=none` being the plain detector.

    Raises:
        ValueError: for an unknown key, weights of another architecture, or records of another run.
        FileNotFoundError: where data or weights are missing.
    """
    options = _parsed(overrides)
    root = Path(data_root or ".")
    dataset = CocoImages(
        root / options.pop("annotations", "annotations.json"),
        root / options.pop("images", "images"),
    )
    size = {"min_size": int(options.pop("min_size"))} if "min_size" in options else {}
    fields = {k: int(v) if v.isdigit() else v for k, v in options.items()}
    model = build_detector(config.removeprefix(PREFIX), dataset.num_classes, fields, **size)
    untrained = load_plain_or_converted(model, weights)
    identity = {
        "weights": hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16],
        "model": config,
        "options": sorted(overrides),
        "untrained_filters": len(untrained),
    }
    return measure(model, dataset, protocol, folder, identity, resume)


def measure(
    model: nn.Module,
    dataset: CocoImages,
    protocol: Protocol,
    folder: str | Path,
    identity: dict[str, Any] | None = None,
    resume: bool = False,
) -> list[dict[str, Any]]:
    """Records of the images of `dataset`; those too small for the protocol are left out, named and
    counted.

    Raises:
        ValueError: where no image is large enough, a prediction isn't finite (the image named), or
            records of another run are there on resuming.
    """
    scorer = InstanceConsistency(protocol, dataset.num_classes)
    skipped: list[str] = []
    model.eval()
    with RecordWriter(folder, protocol, identity or {}, resume=resume) as writer:
        for index in tqdm(range(len(dataset)), desc="views"):
            if dataset.ids[index] in writer.done:
                continue
            image, truth = dataset[index]
            pixels, truth = _at_input(model, image, truth)
            try:
                plan = protocol.plan(*pixels.shape[-2:], dataset.ids[index])
            except ValueError as error:
                skipped.append(str(error))
                logger.warning(f"left out: {error}")
                continue
            writer.append(scorer.score(plan, _predictions(model, pixels, plan), truth))
    if len(skipped) == len(dataset):
        raise ValueError(f"no image was measured: {skipped[0]}")
    if skipped:
        logger.warning(f"{len(skipped)} of {len(dataset)} images were left out")
    return read_records(folder)[1]


@torch.no_grad()
def _predictions(model: nn.Module, pixels: torch.Tensor, plan: ViewPlan) -> Iterator[dict]:
    """What the model says of each view, which it must not resize again."""
    transform = model.transform
    resize = transform.min_size, transform.max_size
    short, long = sorted((plan.crop.height, plan.crop.width))
    for view in plan.views:
        transform.min_size, transform.max_size = (short,), long
        try:
            (found,) = model([extract(pixels, view)])
        finally:
            transform.min_size, transform.max_size = resize
        masks = found["masks"][:, 0] > 0.5 if "masks" in found else None
        yield {**found, "masks": masks}


def _at_input(
    model: nn.Module, image: torch.Tensor, truth: dict[str, Any]
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The image as the network gets it, and its ground truth in the same pixels."""
    pixels, _ = model.eval().transform.resize(image, None)
    size = pixels.shape[-2:]
    scale = torch.tensor([new / old for new, old in zip(size[::-1], image.shape[:0:-1])] * 2)
    # Objects as a batch, which may be empty, unlike channels.
    masks = F.interpolate(truth["masks"][:, None].float(), size, mode="nearest-exact")[:, 0] > 0.5
    return pixels, {**truth, "boxes": truth["boxes"] * scale, "masks": masks.numpy()}


def _parsed(overrides: Sequence[str]) -> dict[str, str]:
    pairs = dict(override.split("=", 1) for override in overrides if "=" in override)
    unknown = [o for o in overrides if o.split("=", 1)[0] not in OPTIONS or "=" not in o]
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}: give KEY=VALUE of {', '.join(OPTIONS)}")
    return pairs
