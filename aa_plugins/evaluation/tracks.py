"""Flicker of detected instances along a video: interruptions, jitter, switches.

After Zhang and Wang, "On the Stability of Video Detection and Tracking" (arXiv 1611.06467), but
with tracks made from the predictions themselves, so that no truth is needed: second differences
take the place of the distance to a true track, and vanish for anything that moves evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from aa_plugins.evaluation.bootstrap import Ratio

LEAST_IOU = 0.3  # of the same instance in neighbouring frames
LONGEST_GAP = 5  # frames after which a lost instance that comes back is another one
JITTERS = ("centre", "scale", "aspect")


class Detection(NamedTuple):
    """One instance in one frame: box (x1, y1, x2, y2) in pixels, class, score in [0, 1]."""

    box: tuple[float, float, float, float]
    label: int
    score: float


@dataclass
class Track:
    """One instance along a clip: numbers of frames, rising, and what was detected there."""

    frames: list[int] = field(default_factory=list)
    detections: list[Detection] = field(default_factory=list)


def link(clip: Sequence[Sequence[Detection]]) -> list[Track]:
    """Tracks of a clip, given the detections of each of its frames.

    Frame by frame, the assignment of detections to tracks that has the largest total IoU
    (Hungarian method) is taken, classes set aside; a track that isn't continued stays open for
    `LONGEST_GAP` frames.
    """
    tracks: list[Track] = []
    for number, detections in enumerate(clip):
        open_tracks = [t for t in tracks if number - t.frames[-1] <= LONGEST_GAP + 1]
        overlap = box_iou([t.detections[-1].box for t in open_tracks], [d.box for d in detections])
        matched = {}
        for row, column in match(overlap, LEAST_IOU):
            matched[column] = open_tracks[row]
        for column, detection in enumerate(detections):
            track = matched.get(column)
            if track is None:
                track = Track()
                tracks.append(track)
            track.frames.append(number)
            track.detections.append(detection)
    return tracks


def match(overlap: np.ndarray, least: float) -> list[tuple[int, int]]:
    """One-to-one pairs of rows and columns with the largest total overlap, none below `least`."""
    allowed = np.where(overlap >= least, overlap, 0.0)
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    return [(int(r), int(c)) for r, c in zip(rows, columns) if allowed[r, c] > 0]


def box_iou(a: Sequence, b: Sequence) -> np.ndarray:
    """Of boxes (x1, y1, x2, y2): (A, 4) and (B, 4) → (A, B)."""
    a = np.asarray(a, np.float64).reshape(-1, 1, 4)
    b = np.asarray(b, np.float64).reshape(1, -1, 4)
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clip(0).prod(2)
    areas = [(box[..., 2:] - box[..., :2]).clip(0).prod(2) for box in (a, b)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)


def instance_flicker(clip: Sequence[Sequence[Detection]]) -> list[dict]:
    """A record of JSON types for each frame of a clip.

    ``alive`` tracks lie around the frame; ``interruptions`` of them begin in it. Each jitter is a
    sum of squared second differences ending in the frame, and their number: of the centre over
    the square root of the box's area, of the logarithm of that root (scale), of the logarithm of
    height over width (aspect). ``score`` is the sum of absolute first differences,
    ``class_switches`` counts changes of class, both over ``steps``.
    """
    records = [_empty() for _ in clip]
    for track in link(clip):
        for number in range(track.frames[0], track.frames[-1] + 1):
            records[number]["alive"] += 1
        for index in range(1, len(track.frames)):
            number, step = track.frames[index], track.frames[index] - track.frames[index - 1]
            if step > 1:
                records[number - step + 1]["interruptions"] += 1
                continue
            a, b = track.detections[index - 1], track.detections[index]
            records[number]["steps"] += 1
            records[number]["score"] += abs(b.score - a.score)
            records[number]["class_switches"] += int(a.label != b.label)
            if index > 1 and track.frames[index - 2] == number - 2:
                three = [_shape(d.box) for d in track.detections[index - 2 : index + 1]]
                for name, value in _second_differences(*three).items():
                    records[number][name][0] += value
                    records[number][name][1] += 1
    return records


def identity_switches(
    clip: Sequence[Sequence[Detection]], truth: Sequence[dict[int, tuple]], least: float = 0.5
) -> int:
    """How often a true instance goes over to another predicted track.

    Args:
        clip: the detections of each frame.
        truth: of each frame, boxes (x1, y1, x2, y2) by identity.
        least: IoU from which a prediction covers a true box.
    """
    by_frame: list[list[tuple[int, tuple]]] = [[] for _ in clip]
    for name, track in enumerate(link(clip)):
        for number, detection in zip(track.frames, track.detections):
            by_frame[number].append((name, detection.box))
    last: dict[int, int] = {}
    switches = 0
    for tracked, true in zip(by_frame, truth, strict=True):
        identities = list(true)
        overlap = box_iou([true[i] for i in identities], [box for _, box in tracked])
        for row, column in match(overlap, least):
            identity, name = identities[row], tracked[column][0]
            switches += last.get(identity, name) != name
            last[identity] = name
    return switches


def instance_statistics(records: Sequence[dict]) -> dict:
    """Fragment error (per cent of a track's frames at which it breaks off), mean squared jitters,
    mean score jitter, per cent of steps that change the class."""

    def column(name: str) -> list:
        return [record[name] for record in records]

    jitters = {f"{name}_jitter": Ratio(*zip(*column(name))) for name in JITTERS if records}
    return {
        "fragments": Ratio(column("interruptions"), column("alive"), 100),
        **jitters,
        "score_jitter": Ratio(column("score"), column("steps")),
        "class_switches": Ratio(column("class_switches"), column("steps"), 100),
    }


def _empty() -> dict:
    counts = dict(alive=0, interruptions=0, steps=0, score=0.0, class_switches=0)
    return {**counts, **{name: [0.0, 0] for name in JITTERS}}


def _shape(box: Sequence[float]) -> np.ndarray:
    """(x, y, log size, log aspect, size) of a box, size the square root of its area."""
    x1, y1, x2, y2 = box
    width, height = max(x2 - x1, 1e-6), max(y2 - y1, 1e-6)
    size = np.sqrt(width * height)
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, np.log(size), np.log(height / width), size])


def _second_differences(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> dict[str, float]:
    bend = a - 2 * b + c
    centre = float(np.square(bend[:2] / b[4]).sum())
    return {"centre": centre, "scale": float(bend[2] ** 2), "aspect": float(bend[3] ** 2)}
