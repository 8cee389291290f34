"""The worst prediction within a radius of shifts: what an adversary gains who may move the image.

After Engstrom et al. (ICML 2019: exhaustive search, and the worst of random choices) and Zhang
(ICML 2019). The reference crop is moved by whole pixels; of each image the view is kept whose
prediction is the most wrong by itself: its class, its mIoU or its AP. Accuracy, mIoU or AP of the
data set is over these views. Truth is cut as the view is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from aa_plugins.evaluation import LeftOut, Protocol, extract, surface_shifts
from aa_plugins.evaluation.views import Box, Pair, View, ViewPlan
from aa_plugins.hosts.interface import Network, Record, Sample
from aa_plugins.robustness.conditions import CLEAN, chosen, measure_each
from aa_plugins.robustness.tasks import quality

RADII = (1, 2, 4, 8, 16, 32)
Shift = tuple[int, int]
Found = dict[Shift, tuple[float, Record]]  # of every shift looked at: how right it is, its record


def shift_protocol(fields: dict, radius: int) -> Protocol:
    """The protocol whose views are all whole shifts up to a radius.

    Args:
        fields: of the network's own protocol.

    Raises:
        ValueError: for a radius under 1.
    """
    if radius < 1:
        raise ValueError(f"radius {radius}: give 1 pixel or more")
    every = {"shifts": surface_shifts(radius), "controls": False, "multiples_in_mean": True}
    return Protocol.from_dict({**fields, "kind": "grid", **every})


def search_all(look: Callable[[Shift], float], radius: int) -> None:
    """Every shift, the nearest first, until nothing is right any more."""
    shifts = [(0, 0), *surface_shifts(radius)]
    for shift in sorted(shifts, key=lambda s: (max(map(abs, s)), s)):
        if look(shift) <= 0:
            return


def search_within_budget(
    look: Callable[[Shift], float], radius: int, budget: int, seed: int
) -> None:
    """No shift, then random shifts for half of the budget, then from the worst of them to its
    worst neighbour at a distance that is halved where none is worse.

    Args:
        look: at a shift: how right the prediction is, 0 for not at all.
        budget: shifts looked at.
        seed: of the random shifts.

    Raises:
        ValueError: for a budget under 2.
    """
    if budget < 2:
        raise ValueError(f"budget {budget}: give 2 shifts or more")
    random = np.random.default_rng(seed)
    seen = {(0, 0): look((0, 0))}
    everywhere = surface_shifts(radius)
    drawn = random.permutation(len(everywhere))[: max(1, budget // 2)]
    step = max(1, radius // 2)
    todo: Iterator[Shift] = iter([everywhere[index] for index in drawn])
    while len(seen) < min(budget, len(everywhere) + 1) and min(seen.values()) > 0:
        shift = next(todo, None)
        if shift is None:
            best = min(seen, key=seen.get)
            around = [(best[0] + dy * step, best[1] + dx * step) for dy, dx in surface_shifts(1)]
            fresh = [s for s in around if max(map(abs, s)) <= radius and s not in seen]
            if not fresh and step == 1:
                return
            step, todo = max(1, step // 2), iter(fresh)
            continue
        seen[shift] = look(shift)


def measure_worst(
    network: Network,
    protocol: Protocol,
    radius: int,
    folder: str | Path,
    budget: int | None = None,
    resume: bool = False,
    images: int | None = None,
    sequences: str | None = None,
) -> list[Record]:
    """Records of the test images, in `folder` and returned: their view without a shift, and the
    worst within each radius; with a budget within the whole radius alone, as what is found within
    a smaller one is chance.

    Args:
        protocol: of `shift_protocol`.
        budget: shifts looked at in each image; all unless given.
        images: of the test set, evenly spread, at most.
        sequences: rule of frames' ids.
    """
    scorer = network.scorer(protocol)
    radii = [radius] if budget else sorted({r for r in RADII if r < radius} | {radius})
    search = search_all if budget is None else partial(search_within_budget, budget=budget)

    def record(sample: Sample, left_out: LeftOut) -> Record | None:
        def planned():
            pixels, truth = sample.load(None)
            return pixels, truth, protocol.plan(*pixels.shape[-2:], sample.image_id)

        read = left_out.read(sample.image_id, sample.file, planned)
        if read is None:
            return None
        pixels, truth, plan = read
        if truth is None:
            raise ValueError(f"image {sample.image_id!r} has no truth to be wrong about: give it")
        found: Found = {}

        def look(shift: Shift) -> float:
            alone = _alone(plan, plan.crop.moved(*shift))
            predictions = network.predict([extract(pixels, alone.views[0])])
            scored = scorer.score(alone, predictions, truth)
            found[shift] = quality(network.task, scored), scored
            return found[shift][0]

        seed = int.from_bytes(hashlib.sha256(str(sample.image_id).encode()).digest()[:8], "little")
        search(look, radius, **({"seed": seed} if budget else {}))
        conditions = {CLEAN: found[0, 0][1]}
        conditions |= {f"within/{r}": worst_within(found, r) for r in radii}
        kept = {"image_id": sample.image_id, "protocol": protocol.fingerprint()}
        return {**kept, "looked_at": len(found), "conditions": conditions}

    samples = chosen(network.samples(protocol), images)
    how = ["worst shift", radius, budget]
    return measure_each(
        network, samples, record, protocol, folder, "shifts", how, resume, sequences
    )


def worst_within(found: Found, radius: int) -> Record:
    """The record of the least right of the shifts within a radius, the first of equals."""
    inside = [entry for shift, entry in found.items() if max(map(abs, shift)) <= radius]
    return min(inside, key=lambda entry: entry[0])[1]


def _alone(plan: ViewPlan, crop: Box) -> ViewPlan:
    """The plan of one view, compared with itself."""
    box = View(crop).box(crop)
    pair = Pair(0, 0, (0, 0), "mean", crop, box, box)
    return ViewPlan(plan.image_id, plan.height, plan.width, crop, False, (View(crop),), (pair,))
