"""The views of an image under a protocol, and the pairs of them that are compared.

How the grid is laid out, for a total stride S. The reference crop sits in the centre, and the
listed shifts move away from it. A control compares an *anchor*, S before the centre along one
axis, with views at k = -S/2, -1, 0, 1, S/2 from the centre: shifts of S + k. So controls reach no
further than S from the centre on either side (a shift of S + S/2 counted from the centre would
take half as much again), the view at k = 0 is the reference, the view at k = 1 the listed 1-pixel
shift, and neither runs twice. 22 forward passes an image with the default list.

A network pads at the borders of a view, and what that does falls off with the distance from them.
The aliasing-specific loss compares pairs at S with pairs at S + k, so it must see the same borders
in both, or it would find a loss in networks without any subsampling. Each of these pairs is scored
on its own overlap, whose edges are borders of its views, less a margin: so the pixels of all pairs
lie at the same distances from the nearest border, beginning at the margin (where images are rolled,
at the margin or a little further in). What a network does beyond the margin still differs between
shifts; :mod:`aa_plugins.evaluation.null` measures how much that can be.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from aa_plugins.evaluation.bad_images import BadImage
from aa_plugins.evaluation.views import Box, Pair, View, ViewPlan

if TYPE_CHECKING:
    from aa_plugins.evaluation.protocol import Protocol

AROUND_STRIDE = ("same_phase", "near", "half")


def plan_views(protocol: Protocol, height: int, width: int, image_id: str | int = "") -> ViewPlan:
    """The views of an image and the pairs to compare.

    Depends on the protocol, the size and the id alone: not on the order of images, the rank or the
    process.

    Args:
        height, width: of the network's input, in pixels.

    Raises:
        BadImage: the image is too small for the crop and its shifts.
    """
    crop = _reference_crop(protocol, height, width, image_id)
    image = Box(0, 0, height, width)
    comparisons = list(_comparisons(protocol, image_id))
    index: dict[View, int] = {}
    if protocol.kind != "pairs":  # the reference and the anchors, compared with many, come first
        for a, *_ in comparisons:
            index.setdefault(_view(protocol, crop, a), len(index))
    found = []
    for a, b, name, repeat in comparisons:
        view_a, view_b = _view(protocol, crop, a), _view(protocol, crop, b, repeat)
        region = view_a.shown.intersection(view_b.shown).intersection(image)
        ends = [index.setdefault(view, len(index)) for view in (view_a, view_b)]
        shift = (b[0] - a[0], b[1] - a[1])
        if not (region.height and region.width):
            raise BadImage(
                image_id,
                f"{height}x{width}: views {crop.height}x{crop.width} shifted by {shift} don't "
                "overlap; use a larger image or smaller shifts",
            )
        found.append((*ends, shift, name, region))
    around = [region for *_, name, region in found if name in AROUND_STRIDE]
    room = min((min(region.height, region.width) for region in around), default=0)
    margin = protocol.margin if room > 2 * protocol.margin else None
    views, pairs = tuple(index), []
    for a, b, shift, name, region in found:
        region = region.inset(margin or 0) if name in AROUND_STRIDE else region
        pairs.append(Pair(a, b, shift, name, region, views[a].box(region), views[b].box(region)))
    circular = protocol.kind == "circular"
    return ViewPlan(image_id, height, width, crop, circular, views, tuple(pairs), margin)


def role(protocol: Protocol, shift: tuple[float, float]) -> str:
    """Whether a shift counts in the ``mean``, or is a ``multiple`` of a stride."""
    strides = (protocol.stride, *protocol.other_strides)
    multiple = any(all(d % stride == 0 for d in shift) for stride in strides)
    return "multiple" if multiple and not protocol.multiples_in_mean else "mean"


def _comparisons(protocol: Protocol, image_id: str | int) -> Iterator[tuple]:
    """(offset of a, offset of b, role, repeat of b) from the reference crop, in pixels."""
    centre = (0, 0)
    if protocol.pairs:
        digest = hashlib.sha256(f"{protocol.seed}/{image_id}".encode()).digest()
        random = np.random.default_rng(int.from_bytes(digest[:16], "little"))
        for _ in range(protocol.pairs):
            yield (*_draw(protocol, random), "mean", 0)
    for shift in protocol.shifts:
        yield centre, shift, role(protocol, shift), 0
    if not protocol.controls:
        return
    yield centre, centre, "noise_floor", 1
    half = protocol.stride // 2
    steps = ((0, "same_phase"), (-1, "near"), (1, "near"), (-half, "half"), (half, "half"))
    for k, name in steps:
        yield (-protocol.stride, 0), (k, 0), name, 0
        yield (0, -protocol.stride), (0, k), name, 0


def _draw(
    protocol: Protocol, random: np.random.Generator
) -> tuple[tuple[int, int], tuple[int, int]]:
    reach = protocol.max_shift
    while True:
        if protocol.kind == "pairs":
            low, high = -((reach + 1) // 2), reach // 2
            a, b = random.integers(low, high + 1, size=(2, 2)).tolist()
        else:
            a, b = [0, 0], random.integers(-reach, reach + 1, size=2).tolist()
        if role(protocol, (b[0] - a[0], b[1] - a[1])) == "mean":
            return tuple(a), tuple(b)


def _view(protocol: Protocol, crop: Box, offset: tuple[float, float], repeat: int = 0) -> View:
    whole = (math.trunc(offset[0]), math.trunc(offset[1]))
    if protocol.kind == "circular":
        return View(crop, roll=whole, repeat=repeat)
    fraction = (float(offset[0] - whole[0]), float(offset[1] - whole[1]))
    return View(crop.moved(*whole), fraction=fraction, repeat=repeat)


def _reference_crop(protocol: Protocol, height: int, width: int, image_id: str | int) -> Box:
    reach, size = _reach(protocol), protocol.crop
    if size == "stride":
        size = tuple(
            (length - 2 * room) // protocol.stride * protocol.stride
            for length, room in zip((height, width), reach, strict=True)
        )
    elif isinstance(size, int):
        size = (height - size, width - size)
    start = ((height - size[0]) // 2, (width - size[1]) // 2)
    # The smallest overlap of the controls is 1.5 S smaller than a crop.
    least = 3 * protocol.stride // 2 + 1 if protocol.controls else 1
    if protocol.crop == "stride":
        least = math.ceil(least / protocol.stride) * protocol.stride
    wanted = [
        f"{name} {length} needs {max(crop, least) + 2 * room} or more"
        for name, length, crop, first, room in zip(
            ("height", "width"), (height, width), size, start, reach, strict=True
        )
        if crop < least or first < room
    ]
    if wanted:
        raise BadImage(
            image_id,
            f"{height}x{width} is too small for its crop and shifts at stride {protocol.stride}: "
            f"{', '.join(wanted)}; use larger images, a smaller crop, smaller shifts or "
            "controls=false",
        )
    return Box(*start, start[0] + size[0], start[1] + size[1])


def _reach(protocol: Protocol) -> tuple[int, int]:
    """How far from the reference crop a view can lie along both axes."""
    if protocol.kind == "circular" or protocol.zero_pad:
        return 0, 0
    random = (protocol.max_shift + 1) // 2 if protocol.kind == "pairs" else protocol.max_shift
    least = max(protocol.stride if protocol.controls else 0, random if protocol.pairs else 0)
    return tuple(
        max([least, *(math.ceil(abs(shift[axis])) for shift in protocol.shifts)]) for axis in (0, 1)
    )
