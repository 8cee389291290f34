"""Conditions that a test set is seen under, and the records of a network under all of them.

A condition changes an image right after it is read (a corruption), or what the network gets of it
(a band of frequencies). Views are cut afterwards, so what is added is part of the scene and moves
with it. The record of an image holds that of every condition, as the task makes it: an interrupted
run goes on with the next image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from aa_plugins.evaluation import LeftOut, Protocol, RecordWriter, extract, read_records
from aa_plugins.evaluation.identity import fingerprint
from aa_plugins.evaluation.sequences import fitting
from aa_plugins.evaluation.views import ViewPlan
from aa_plugins.hosts.interface import Change, Network, Record, Sample

CLEAN = "clean"


@dataclass(frozen=True)
class Condition:
    """A way to see images.

    Args:
        name: "FAMILY/LEVEL", such as "fog/3"; "clean" for images as they are.
        of_image: changes the image as read, (H, W, 3) uint8 in RGB.
        of_input: changes the pixels (C, H, W), floating, that the network gets of it.
    """

    name: str
    of_image: Change | None = None
    of_input: Callable[[torch.Tensor], torch.Tensor] | None = None


def chosen(samples: Sequence[Sample], images: int | None) -> list[Sample]:
    """Evenly spread samples, at most as many.

    Raises:
        ValueError: for fewer than 1.
    """
    if images is not None and images < 1:
        raise ValueError(f"{images} images: give 1 or more")
    if images is None or images >= len(samples):
        return list(samples)
    return [samples[index * len(samples) // images] for index in range(images)]


def centre_of(network: Network, image: np.ndarray) -> torch.Tensor:
    """An image (H, W, 3) as a classifier gets it, and of that the centre of the size of a view."""
    pixels = network.prepared(image)
    return pixels[(..., *network.window(*pixels.shape[-2:]))]


def measure(
    network: Network,
    conditions: Sequence[Condition],
    protocol: Protocol,
    folder: str | Path,
    analysis: str,
    resume: bool = False,
    images: int | None = None,
    sequences: str | None = None,
) -> list[Record]:
    """Records of the test images under all conditions, in `folder` and returned.

    Args:
        analysis: what the conditions are of; the records' task is "TASK/ANALYSIS".
        images: of the test set, evenly spread, at most.
        sequences: rule of frames' ids, see `aa_plugins.evaluation.sequences`.

    Raises:
        ValueError: where no image can be measured, or records of another run are there on resuming.
    """
    scorer = network.scorer(protocol)

    def record(sample: Sample, left_out: LeftOut) -> Record | None:
        found = {}
        for condition in conditions:
            read = left_out.read(
                sample.image_id, sample.file, lambda c=condition: _seen(sample, c, protocol)
            )
            if read is None:
                return None
            pixels, truth, plan = read
            views = (extract(pixels, view) for view in plan.views)
            found[condition.name] = scorer.score(plan, network.predict(views), truth)
        kept = {"image_id": sample.image_id, "protocol": protocol.fingerprint()}
        return {**kept, "conditions": found}

    samples = chosen(network.samples(protocol), images)
    return measure_each(
        network,
        samples,
        record,
        protocol,
        folder,
        analysis,
        [condition.name for condition in conditions],
        resume,
        sequences,
    )


def measure_each(
    network: Network,
    samples: Sequence[Sample],
    record: Callable[[Sample, LeftOut], Record | None],
    protocol: Protocol,
    folder: str | Path,
    analysis: str,
    how: Any,
    resume: bool,
    sequences: str | None = None,
) -> list[Record]:
    """One record a sample, with progress; those that are there on resuming are kept.

    Args:
        record: makes it; None where it has left the image out.
        how: what else must not change between a run and its resumption.
    """
    ids = [sample.image_id for sample in samples]
    identity = {
        "weights": network.weights_hash(),
        "data": fingerprint(ids),
        "pipeline": fingerprint(how),
    }
    task = f"{network.task}/{analysis}"
    rule = fitting(sequences, map(str, ids))
    with (
        RecordWriter(
            folder, protocol, identity, resume=resume, task=task, sequences=rule
        ) as writer,
        torch.no_grad(),
    ):
        left_out = LeftOut(writer)
        for sample in _progress(samples, writer.done, network.name):
            found = record(sample, left_out)
            if found is not None:
                writer.append(found)
        left_out.require_some(len(samples))
    return read_records(folder)[1]


def _progress(samples: Sequence[Sample], done: set, name: str) -> Iterator[Sample]:
    todo = [sample for sample in samples if sample.image_id not in done]
    yield from tqdm(todo, desc=name, total=len(samples), initial=len(samples) - len(todo))


def _seen(
    sample: Sample, condition: Condition, protocol: Protocol
) -> tuple[torch.Tensor, Any, ViewPlan]:
    pixels, truth = sample.load(condition.of_image)
    if condition.of_input is not None:
        pixels = condition.of_input(pixels.float())
    return pixels, truth, protocol.plan(*pixels.shape[-2:], sample.image_id)
