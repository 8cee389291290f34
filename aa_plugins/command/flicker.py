"""How much predictions flicker from frame to frame of a video, though the scene doesn't change.

A video, or a folder of its frames; what moves is followed by optical flow:
  aa-plugins flicker timm:resnet50 --weights pretrained --video street.mp4
  aa-plugins flicker A.py B.py --weights a.pth b.pth --video street.mp4 --every 2
Photos under a known camera path, where nothing but the motion changes:
  aa-plugins flicker A.py B.py --weights a.pth b.pth --photos photos --frames 16
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from aa_plugins.command.networks import add_networks, load_networks
from aa_plugins.command.options import add_out

if TYPE_CHECKING:
    import numpy as np
    import torch

    from aa_plugins.evaluation.motion import Motion
    from aa_plugins.hosts.interface import Network

COLUMNS = {
    "semantic": ("flicker", "mTC"),
    "classification": ("flicker", "score_jitter"),
    "instance": (
        "fragments",
        "centre_jitter",
        "scale_jitter",
        "aspect_jitter",
        "score_jitter",
        "class_switches",
    ),
}
LEAST_SCORE = 0.5  # of an instance that is followed
SHOWN = 40  # frames of the moving picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_networks(parser)
    add_out(parser, "out/flicker")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--video", metavar="FILE", help="a video, or a folder of its frames")
    source.add_argument("--photos", metavar="DIR", help="stills, moved along a known path")
    parser.add_argument("--frames", type=int, metavar="N", help="of a clip, at most")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="keep one of N frames")
    parser.add_argument("--seed", type=int, default=0, help="of the camera paths")


class Frames(NamedTuple):
    """A clip as one network sees it.

    Attributes:
        clip: its name.
        pictures: (H, W, 3) uint8 frames at the size of the network's input.
        inputs: (C, H, W) of each frame.
        motions: from each frame but the first to the one before, when asked for.
        offsets: (frames, 2) of the camera where it is known, else zeros.
    """

    clip: str
    pictures: list[np.ndarray]
    inputs: Callable[[], Iterator[torch.Tensor]]
    motions: Callable[[], Iterator[Motion]]
    offsets: np.ndarray


def run(args: argparse.Namespace) -> None:
    from aa_plugins.report import Report
    from aa_plugins.report.moving import moving_picture, side_by_side, write_video

    if args.frames is not None and args.frames < 2:
        raise ValueError(f"--frames {args.frames}: nothing can flicker in fewer than 2")
    networks = load_networks(args)
    task = next(iter(networks.values())).task
    records: dict[str, list[dict]] = {}
    films: dict[str, list[np.ndarray]] = {}
    for name, network in networks.items():
        records[name], films[name] = measure(network, clips(args, network), name)
    results, differences = summarise(task, records)
    notes = {"command": " ".join(["aa-plugins flicker", *args.arguments])}
    notes |= {"steps": {name: len(found) for name, found in records.items()}}
    frames = [side_by_side(parts) for parts in zip(*films.values())]
    names = ", ".join(films)
    picture = moving_picture(
        frames[:SHOWN],
        f"A moving picture of the predictions of {names}, what flickers in pink",
        f"From left to right: {names}. Pink: what changes though the scene doesn't.",
        milliseconds=200,
    )
    report = Report(
        "Flicker", results, differences, notes, [picture], COLUMNS[task], verdict(task, results)
    )
    report.save(args.out, "flicker")
    write_video(args.out / "flicker.mp4", frames, 5)
    print(f"{report.text()}\n\nSaved as {args.out}/flicker.json, .md, .html and .mp4")


def clips(args: argparse.Namespace, network: Network) -> Iterator[Frames]:
    """The video, or one clip for each photo."""
    if args.video:
        yield filmed(args, network)
        return
    from aa_plugins.datasets.images import Photos

    photos = Photos(args.photos)
    for index in range(len(photos)):
        yield moved(args, network, str(photos.ids[index]), photos.read(index)[0], index)


def filmed(args: argparse.Namespace, network: Network) -> Frames:
    """A video, its motion by optical flow."""
    import cv2
    import numpy as np

    from aa_plugins.datasets.clips import Clip
    from aa_plugins.evaluation.motion import optical_flow

    clip = Clip(args.video, args.frames, args.every)
    originals = list(clip)
    height, width = network.prepared(originals[0]).shape[-2:]
    window = network.window(height, width)
    whole = (cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in originals)
    pictures = [frame[window] for frame in whole]
    return Frames(
        clip.name,
        pictures,
        lambda: (network.prepared(frame)[(..., *window)] for frame in originals),
        lambda: (optical_flow(a, b) for a, b in zip(pictures, pictures[1:])),
        np.zeros((len(pictures), 2)),
    )


def moved(
    args: argparse.Namespace, network: Network, name: str, photo: np.ndarray, seed: int
) -> Frames:
    """A still, and the camera path that is known."""
    import cv2
    import numpy as np
    import torch

    from aa_plugins.evaluation.motion import known_motion
    from aa_plugins.evaluation.temporal import camera_path, moved_frames, reach_of

    pixels = network.prepared(photo)
    path = camera_path(args.frames or 16, seed=args.seed + seed)
    height, width = pixels.shape[-2:]
    resized = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    window = network.window(height, width, 2 * reach_of(path))
    pixels, resized = pixels[(..., *window)], resized[window]
    seen = moved_frames(torch.from_numpy(resized.copy()).permute(2, 0, 1), path)
    pictures = [f.clamp(0, 255).byte().permute(1, 2, 0).numpy() for f in seen]
    height, width = pictures[0].shape[:2]
    return Frames(
        name,
        pictures,
        lambda: moved_frames(pixels, path),
        lambda: (known_motion(height, width, tuple(d)) for d in np.diff(path, axis=0)),
        path,
    )


def measure(
    network: Network, clips: Iterator[Frames], name: str
) -> tuple[list[dict], list[np.ndarray]]:
    """Records of all clips, and the frames of the first as a film of what was predicted."""
    from tqdm import tqdm

    steps = {"semantic": dense, "classification": classes, "instance": instances}[network.task]
    records: list[dict] = []
    film: list[np.ndarray] = []
    for number, frames in enumerate(clips):
        bar = tqdm(frames.inputs(), total=len(frames.pictures), desc=f"{name}, {frames.clip}")
        found, drawn = steps(frames, network.predict(bar))
        records += found
        film = drawn if number == 0 else film
    return records, film


def dense(frames: Frames, predictions: Iterator[Any]) -> tuple[list[dict], list[np.ndarray]]:
    import numpy as np

    from aa_plugins.evaluation.temporal import dense_steps
    from aa_plugins.report.flips import palette_of
    from aa_plugins.report.moving import painted_frame

    first = next(predictions)
    # Probabilities of every class, or the labels of a head with a threshold, which has two.
    num_classes = len(first) if first.dim() == 3 else 2
    whole = (p.argmax(0) if p.dim() == 3 else p for p in chain([first], predictions))
    labels = (p.cpu().numpy().astype(np.int64) for p in whole)
    colours = palette_of(num_classes)
    records, film = [], []
    steps = dense_steps(labels, frames.motions(), frames.clip, num_classes)
    for picture, (record, after, flips) in zip(frames.pictures[1:], steps):
        records.append(record)
        film.append(painted_frame(picture, after, flips, colours))
    return records, film


def classes(frames: Frames, predictions: Iterator[Any]) -> tuple[list[dict], list[np.ndarray]]:
    from aa_plugins.evaluation.temporal import class_steps
    from aa_plugins.report.moving import framed

    scores = (values.softmax(0).cpu().numpy() for values in predictions)
    records = list(class_steps(scores, frames.clip))
    film = [framed(p, bool(r["flips"])) for p, r in zip(frames.pictures[1:], records)]
    return records, film


def instances(frames: Frames, predictions: Iterator[Any]) -> tuple[list[dict], list[np.ndarray]]:
    import numpy as np

    from aa_plugins.evaluation.tracks import Detection, instance_flicker, link
    from aa_plugins.report.moving import boxed_frame

    clip = []
    for found, (dy, dx) in zip(predictions, frames.offsets):
        scores = np.asarray(found["scores"], float)
        kept = np.flatnonzero(scores >= LEAST_SCORE)
        # A known motion is taken out, so that only what doesn't follow it is left.
        boxes = np.asarray(found["boxes"], float)[kept] + np.array([dx, dy, dx, dy])
        labels = np.asarray(found["labels"])[kept]
        rows = zip(boxes, labels, scores[kept])
        clip.append([Detection(tuple(map(float, b)), int(c), float(s)) for b, c, s in rows])
    places = [
        {"image_id": f"{frames.clip}/{i:06d}", "sequence": frames.clip, "position": i}
        for i in range(len(clip))
    ]
    records = [{**p, **r} for p, r in zip(places, instance_flicker(clip))]
    known = {(f, d.box) for t in link(clip) for f, d in zip(t.frames[1:], t.detections[1:])}
    film = []
    for number, picture in enumerate(frames.pictures):
        dy, dx = frames.offsets[number]
        boxes = [np.array(d.box) - np.array([dx, dy, dx, dy]) for d in clip[number]]
        fresh = [number > 0 and (number, d.box) not in known for d in clip[number]]
        film.append(boxed_frame(picture, boxes, fresh))
    return records, film


def summarise(task: str, records: dict[str, list[dict]]) -> tuple[dict, dict]:
    """Numbers of every network and differences of every pair, with intervals over blocks."""
    from aa_plugins.evaluation.bootstrap import differences, intervals
    from aa_plugins.evaluation.resampling import units_of
    from aa_plugins.evaluation.temporal import classification_statistics, semantic_statistics
    from aa_plugins.evaluation.tracks import instance_statistics

    statistics = {
        "semantic": semantic_statistics,
        "classification": classification_statistics,
        "instance": instance_statistics,
    }[task]
    trees = {name: statistics(found) for name, found in records.items()}
    units = units_of(next(iter(records.values())))
    results = {name: intervals(tree, units=units) for name, tree in trees.items()}
    names = list(trees)
    compared = {
        f"{later} - {earlier}": differences(trees[earlier], trees[later], units=units)
        for position, later in enumerate(names)
        for earlier in names[:position]
    }
    return results, compared


def verdict(task: str, results: dict) -> str:
    """Who flickers least, in one sentence."""
    measure = COLUMNS[task][0]
    entries = {name: tree[measure] for name, tree in results.items()}
    told = [
        f"{name} {e['value']:.2f} [{e['low']:.2f}, {e['high']:.2f}]"
        for name, e in entries.items()
        if e["value"] is not None and e["low"] is not None
    ]
    what = {
        "semantic": "Per cent of pixels that change class from frame to frame without a cause",
        "classification": "Per cent of frames at which the class changes",
        "instance": "Per cent of a track's frames at which it breaks off",
    }[task]
    return f"{what}: {'; '.join(told) or 'too little was found to tell'} (95 % intervals)."
