"""A classifier of photos on the frames of videos: domain shift, and flips along a clip.

Accuracy per frame; pm-k accuracy, the share of frames around which all frames at most k away are
right, too (Shankar et al., "Do Image Classifiers Generalize Across Time?", ICCV 2021: theirs is of
one hand-picked frame a clip, ours of all frames); consistency, the share of neighbouring frames
with one class. A frame is right where its class is one of those of its objects. Frames without a
class are left out of accuracies. Clips are the unit of intervals.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from tqdm import tqdm

from aa_plugins.datasets import imagenet_vid
from aa_plugins.datasets.clips import Clip, clips_below
from aa_plugins.datasets.images import numbered
from aa_plugins.evaluation.bootstrap import Ratio, differences, intervals
from aa_plugins.evaluation.identity import fingerprint
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import RecordWriter, paired_records, read_records
from aa_plugins.evaluation.resampling import Images
from aa_plugins.hosts.interface import Network, Record
from aa_plugins.robustness.conditions import centre_of

NEAR = (1, 5, 10)  # frames on either side


@dataclass
class LabelledClip:
    """A clip and the classes of each of its frames; none where nothing is known of a frame."""

    name: str
    clip: Clip
    classes: list[list[int]]


class LabelledClips:
    """The clips of a folder: ImageNet-VID, or CLASS/CLIP, where CLIP is a video or a folder of
    frames and CLASS is called as class folders of images are ("207_retriever").

    Args:
        num_classes: of the network.
        split: of ImageNet-VID.
        class_map: of ImageNet-VID's classes to the network's; ours unless given.
        frames, every: of a clip, see `Clip`.

    Attributes:
        known: the network's classes that a prediction is chosen among: those of ImageNet-VID's
            map, else all.

    Raises:
        FileNotFoundError: without any clip.
        ValueError: for classes that the network doesn't have, or can't be told.
    """

    def __init__(
        self,
        folder: str | Path,
        num_classes: int,
        split: str = "val",
        class_map: str | Path | None = None,
        frames: int | None = None,
        every: int = 1,
    ) -> None:
        self.folder, self.num_classes = Path(folder), num_classes
        self._cut = {"frames": frames, "every": every}
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}: give the folder of the clips")
        self._vid = imagenet_vid.is_layout(folder)
        self._map = imagenet_vid.CLASSES if class_map is None else _read_map(class_map)
        self.known = list(range(num_classes))
        if self._vid:
            self.known = sorted({index for rows in self._map.values() for index in rows})
            if self.known[-1] >= num_classes:
                raise ValueError(
                    f"the map has class {self.known[-1]}, the network {num_classes} classes: give "
                    "a --class-map of its classes"
                )
            self._paths = imagenet_vid.snippets(folder, split)
        else:
            self._paths = clips_below(folder)
            if not self._paths or self.folder in self._paths:
                raise FileNotFoundError(f"no clip {folder}/CLASS/CLIP: give videos or frames there")

    @cached_property
    def _classes(self) -> dict[str, int]:
        names = sorted({path.relative_to(self.folder).parts[0] for path in self._paths})
        return numbered(names, self.num_classes, self.folder)

    def __iter__(self) -> Iterator[LabelledClip]:
        for path in self._paths:
            clip = Clip(path, **self._cut)
            below = path.relative_to(self.folder)
            if self._vid:
                classes = imagenet_vid.classes_of(self.folder, clip, self._map)
            else:
                classes = [[self._classes[below.parts[0]]]] * len(clip)
            yield LabelledClip(below.as_posix(), clip, classes)

    def __len__(self) -> int:
        return len(self._paths)


def measure_clips(
    network: Network, clips: LabelledClips, folder: str | Path, resume: bool = False
) -> list[Record]:
    """A record a clip: the class of every frame, and which are right (None without a class).

    The frame is prepared as any image, and its centre is what the network gets.

    Raises:
        ValueError: for a network that isn't a classifier, or records of another run on resuming.
    """
    if network.task != "classification":
        raise ValueError(f"{network.name} is for task {network.task}: clips are for classifiers")
    protocol = Protocol.from_dict({**network.protocol(), "shifts": ((1, 0),), "controls": False})
    identity = {
        "weights": network.weights_hash(),
        "data": fingerprint([*map(str, clips._paths), clips._cut]),
        "pipeline": fingerprint(clips.known),
    }
    known = torch.tensor(clips.known)
    with RecordWriter(
        folder, protocol, identity, resume=resume, task="classification/clips"
    ) as writer:
        for item in tqdm(clips, desc=network.name):
            if item.name in writer.done:
                continue
            centres = (centre_of(network, frame) for frame in item.clip)
            found = [
                int(known[scores.cpu()[known].argmax()]) for scores in network.predict(centres)
            ]
            pairs = zip(found, item.classes)
            right = [int(top in classes) if classes else None for top, classes in pairs]
            kept = {"image_id": item.name, "protocol": protocol.fingerprint()}
            writer.append({**kept, "classes": found, "right": right})
    return read_records(folder)[1]


def clip_statistics(records: Sequence[Record]) -> dict:
    """Sorted records to the tree of statistics, in percent, frames pooled over clips: ``accuracy``,
    ``pm`` by k, ``agreement`` of neighbouring frames, and ``agreement_within`` k frames."""
    accuracy = [_counts(record["right"], 0) for record in records]
    tree: dict = {"accuracy": Ratio(*zip(*accuracy), 100), "pm": {}, "agreement_within": {}}
    for k in NEAR:
        tree["pm"][str(k)] = Ratio(*zip(*(_counts(record["right"], k) for record in records)), 100)
        same = [
            [a == b for d in range(1, k + 1) for a, b in zip(r["classes"], r["classes"][d:])]
            for r in records
        ]
        tree["agreement_within"][str(k)] = Ratio(
            [sum(s) for s in same], [len(s) for s in same], 100
        )
    return {**tree, "agreement": tree["agreement_within"]["1"]}


def summarise_clips(records: dict[str, list[Record]]) -> tuple[dict, dict]:
    """Numbers of every network and differences of every pair, with intervals over clips."""
    names = list(records)
    clips = Images("clip")
    results = {name: intervals(clip_statistics(records[name]), units=clips) for name in names}
    compared = {}
    for position, later in enumerate(names):
        for earlier in names[:position]:
            pair = paired_records(records[earlier], records[later])
            compared[f"{later} - {earlier}"] = differences(*map(clip_statistics, pair), units=clips)
    return results, compared


def _counts(right: Sequence[int | None], k: int) -> tuple[int, int]:
    """Frames around which all known frames at most k away are right, and frames with a class."""
    held = [
        all(near != 0 for near in right[max(0, i - k) : i + k + 1])
        for i, own in enumerate(right)
        if own is not None
    ]
    return sum(held), len(held)


def _read_map(path: str | Path) -> dict[str, tuple[int, ...]]:
    found = json.loads(Path(path).read_text())
    whole = isinstance(found, dict) and all(
        isinstance(row, list) and row and all(isinstance(i, int) and i >= 0 for i in row)
        for row in found.values()
    )
    if not whole or not found:
        raise ValueError(f'{path}: give an object such as {{"n02084071": [151, 152]}}')
    return {name: tuple(row) for name, row in found.items()}
