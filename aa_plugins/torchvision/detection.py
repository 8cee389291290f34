"""Shift consistency of torchvision's detectors, by the accumulator that the hosts share."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torchvision.models import detection, get_model, list_models
from tqdm import tqdm

from aa_plugins.checkpoints import read_checkpoint, weights_in
from aa_plugins.config import AAConfig, check_positive_int
from aa_plugins.datasets.coco import CocoImages
from aa_plugins.diagnostics.finite import finite
from aa_plugins.evaluation.bad_images import LeftOut
from aa_plugins.evaluation.identity import run_identity
from aa_plugins.evaluation.instance import InstanceConsistency
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import RecordWriter, read_records
from aa_plugins.evaluation.views import ViewPlan, extract
from aa_plugins.hosts.detector import at_input, predict, stride_of
from aa_plugins.surgery import antialias, load_plain_or_converted

logger = logging.getLogger(__name__)

PREFIX = "torchvision:"
PATHS = {"annotations": "annotations.json", "images": "images"}
OPTIONS = (*PATHS, "min_size", *AAConfig().to_dict())
# What a filter's keys have in them.
MARKERS = (".prefilter.", ".postfilter.")


def build_detector(
    name: str, num_classes: int, aa: AAConfig | Mapping[str, Any] | None = None, **options: Any
) -> nn.Module:
    """A detector of torchvision with random weights and an anti-aliased backbone.

    Args:
        name: such as maskrcnn_resnet50_fpn.
        num_classes: with the background.
        aa: AAConfig or its fields; filter="none" keeps the backbone as it is.
        options: of torchvision's own builder, such as min_size.

    Raises:
        ValueError: for another name, or an option that the builder doesn't take.
    """
    known = list_models(module=detection)
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"choose from {', '.join(known)}"
        raise ValueError(f"torchvision has no detector {name!r}: {hint}")
    try:
        model = get_model(
            name, weights=None, weights_backbone=None, num_classes=num_classes, **options
        )
    except TypeError as error:
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        raise ValueError(f"{name} doesn't take {given} ({error}): leave it out") from error
    # Large enough for the last maps of SSD, whose convolutions have no padding.
    antialias(model.backbone, AAConfig.of(aa), example=torch.zeros(1, 3, 512, 512))
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
        if not torch.isfinite(loss):
            raise ValueError(f"the training diverged at step {step}: lower the rate of {rate}")
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (0.1 if step > 0.8 * iterations else 1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.2f}")


def protocol_of(config: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of the protocol that fits a detector: its total stride.

    Args:
        overrides: as of `evaluate`.
    """
    _, fields, size = _parsed(overrides)
    return {"stride": stride_of(build_detector(config.removeprefix(PREFIX), 2, fields, **size))}


def check(
    config: str,
    weights: str | Path,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Raise as `evaluate` would for what is wrong with its inputs, without measuring anything."""
    _prepared(config, weights, data_root, overrides)


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
            the input in pixels) and fields of AAConfig. Without `filter` the detector has filters
            where the weights hold some, and is plain otherwise; a blur, of which weights hold
            nothing, needs `filter=blur`.

    Raises:
        ValueError: for an unknown key, weights of another architecture, or records of another run.
        FileNotFoundError: where data or weights are missing.
    """
    model, dataset, untrained = _prepared(config, weights, data_root, overrides)
    stride = stride_of(model)
    if stride not in (protocol.stride, *protocol.other_strides):
        logger.warning(
            f"the protocol's stride is {protocol.stride}, but the network's total stride is "
            f"{stride}: give stride={stride}"
        )
    identity = {
        **run_identity(
            model=[config, str(model)],
            weights=weights,
            files=dataset.files,
            data=dataset.coco.dataset,
            pipeline=str(model.transform),
            software=("torchvision",),
        ),
        "untrained_filters": len(untrained),
    }
    return measure(model, dataset, protocol, folder, identity, resume)


def images_of(data_root: str | Path | None = None, overrides: Sequence[str] = ()) -> CocoImages:
    """The images that `annotations` and `images` of the overrides name."""
    paths, root = _parsed(overrides)[0], Path(data_root or ".")
    return CocoImages(root / paths["annotations"], root / paths["images"])


def load_detector(
    config: str,
    weights: str | Path,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> nn.Module:
    """The detector with its weights, in eval mode; arguments as of `evaluate`."""
    return _prepared(config, weights, data_root, overrides)[0].eval()


def _prepared(
    config: str, weights: str | Path, data_root: str | Path | None, overrides: Sequence[str]
) -> tuple[nn.Module, CocoImages, list[str]]:
    """The detector with its weights, the images, and the filters that keep their start."""
    _, fields, size = _parsed(overrides)
    state = weights_in(read_checkpoint(weights), (), weights)
    dataset = images_of(data_root, overrides)
    if "filter" not in fields:
        held = any(marker in key for key in state for marker in MARKERS)
        fields["filter"] = AAConfig().filter if held else "none"
        found = (
            f"filters: filter={fields['filter']}" if held else "no filter: the detector is plain"
        )
        logger.warning(f"{weights} holds {found} (a blur leaves no trace: filter=blur)")
    model = build_detector(config.removeprefix(PREFIX), dataset.num_classes, fields, **size)
    untrained = load_plain_or_converted(model, state)
    if untrained:
        logger.warning(
            f"{weights} holds no weights of the filters {', '.join(untrained)}: they keep their "
            "start, what is measured is a swap without training"
        )
    return model, dataset, untrained


def measure(
    model: nn.Module,
    dataset: CocoImages,
    protocol: Protocol,
    folder: str | Path,
    identity: dict[str, Any] | None = None,
    resume: bool = False,
) -> list[dict[str, Any]]:
    """Records of the images of `dataset`; those that can't be read, or are too small for the
    protocol, are left out, named and counted.

    Raises:
        ValueError: where no image is left, a prediction isn't finite (the image named), or records
            of another run are there on resuming.
    """
    scorer = InstanceConsistency(protocol, dataset.num_classes)
    model.eval()
    file = ""
    with (
        RecordWriter(folder, protocol, identity or {}, resume=resume, task="instance") as writer,
        finite(model, lambda _: f"image {file}"),
    ):
        left_out = LeftOut(writer)
        for index, image_id in enumerate(tqdm(dataset.ids, desc="views")):
            if image_id in writer.done:
                continue
            file = str(dataset.files[index])
            sample = left_out.read(
                image_id, file, partial(_sample, model, dataset, protocol, index)
            )
            if sample is not None:
                pixels, truth, plan = sample
                views = (predict(model, extract(pixels, view)) for view in plan.views)
                writer.append(scorer.score(plan, views, truth))
    left_out.require_some(len(dataset))
    if left_out.reasons:
        logger.warning(f"{len(left_out.reasons)} of {len(dataset)} images were left out")
    return read_records(folder)[1]


def _sample(
    model: nn.Module, dataset: CocoImages, protocol: Protocol, index: int
) -> tuple[torch.Tensor, dict[str, Any] | None, ViewPlan]:
    pixels, truth = at_input(model, *dataset[index])
    return pixels, truth, protocol.plan(*pixels.shape[-2:], dataset.ids[index])


def _parsed(overrides: Sequence[str]) -> tuple[dict[str, str], dict[str, Any], dict[str, int]]:
    """Paths of the data, fields of AAConfig, and the size of the input if it is given."""
    pairs = dict(override.split("=", 1) for override in overrides if "=" in override)
    unknown = [o for o in overrides if o.split("=", 1)[0] not in OPTIONS or "=" not in o]
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}: give KEY=VALUE of {', '.join(OPTIONS)}")
    paths = {name: pairs.pop(name, default) for name, default in PATHS.items()}
    values = {name: yaml.safe_load(value) for name, value in pairs.items()}
    size = {"min_size": values.pop("min_size")} if "min_size" in values else {}
    if size:
        check_positive_int("min_size", size["min_size"])
    AAConfig.from_dict(values)  # a wrong value is found before any work is done
    return paths, values, size
