"""COCO average precision of an image's reference, worst and best view, with intervals.

pycocotools matches detections to ground truth, view by view. What it finds is kept in the image's
record, so that AP over any resample of images follows from the records alone. For each image the
worst (best) of its shifted views is the one with the lowest (highest) AP of its own; the worst-view
AP is the AP over the dataset of these views (Zou et al.'s "pmk"; Manfredi & Wang, ECCV workshops
2020). A view without ground truth has no AP: where an image has others, these alone are looked at;
where it has none, the worst view is that with the most certain detection, which is false. Views
that are equal up to rounding are decided by the plan's order, the first one wins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from pycocotools.cocoeval import COCOeval

from aa_plugins.evaluation.matching import LEAST_AREA, Patch, clip, encode, patch
from aa_plugins.evaluation.views import Box, View, ViewPlan

KINDS = {"box": "bbox", "mask": "segm"}  # ours: pycocotools'
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
_BITS = 1 << np.arange(len(IOU_THRESHOLDS))
_BLOCK = 2_000_000  # weighted detections held at a time


def cut_ground_truth(
    labels: Sequence[int],
    boxes: np.ndarray,
    crowd: Sequence[bool],
    patches: Sequence[Patch] | None,
    crop: Box,
) -> dict[int, list[dict]]:
    """Ground truth of an image cut to a view, by category, as pycocotools wants it.

    Boxes are clipped, not fitted again to the cut masks. What is left with under 10 pixels (of its
    mask; of its box without masks) is dropped.
    """
    found: dict[int, list[dict]] = defaultdict(list)
    for number, (label, box) in enumerate(zip(labels, clip(boxes, crop))):
        x0, y0, x1, y1 = map(float, box)
        truth = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
        if patches is not None:
            mask = patches[number].cut(crop)
            truth["area"] = float(np.count_nonzero(mask.bits))
            truth["segmentation"] = mask.encoded(crop.height, crop.width)
        if truth["area"] >= LEAST_AREA:
            # pycocotools takes id 0 for "no match".
            truth.update(id=number + 1, iscrowd=int(crowd[number]), ignore=int(crowd[number]))
            found[int(label)].append(truth)
    return found


def match_view(
    kind: str,
    scores: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
    masks: Sequence[dict] | None,
    truths: dict[int, list[dict]],
) -> dict[str, dict]:
    """What COCO's evaluation finds in a view, for each category with detections or ground truth.

    Args:
        kind: ``"box"`` or ``"mask"``.
        scores, labels, boxes, masks: the detections; boxes (n, 4) as x0, y0, x1, y1, masks as COCO
            run lengths.
        truths: from :func:`cut_ground_truth`.

    Returns:
        category to ``positives`` (ground truth other than crowds), and, by descending score,
        ``scores``, ``matched`` and ``ignored`` (bit t stands for the t-th IoU threshold).
    """
    detections: dict[int, list[dict]] = defaultdict(list)
    for number, (score, label, (x0, y0, x1, y1)) in enumerate(
        zip(scores.tolist(), labels.tolist(), boxes.tolist())
    ):
        area = (x1 - x0) * (y1 - y0)
        detection = {"id": number + 1, "score": score, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        detections[label].append({**detection, "area": area})
        if kind == "mask":
            detections[label][-1]["segmentation"] = masks[number]
    categories = sorted({*detections, *(label for label in truths if truths[label])})
    evaluation = COCOeval(iouType=KINDS[kind])
    evaluation.params.imgIds, evaluation.params.catIds = [0], categories
    for category in categories:
        evaluation._gts[0, category] = truths.get(category, [])
        evaluation._dts[0, category] = detections.get(category, [])
    evaluation.ious = {(0, c): evaluation.computeIoU(0, c) for c in categories}
    found = {}
    for category in categories:
        result = evaluation.evaluateImg(0, category, [0, 1e10], evaluation.params.maxDets[-1])
        found[str(category)] = {
            "positives": int(np.count_nonzero(np.asarray(result["gtIgnore"]) == 0)),
            "scores": [float(score) for score in result["dtScores"]],
            "matched": (_BITS @ (result["dtMatches"] > 0)).tolist(),
            "ignored": (_BITS @ (result["dtIgnore"] > 0)).tolist(),
        }
    return found


class ViewPrecision:
    """Matches the views of one image with its ground truth; keeps the reference, worst and best.

    Args:
        plan: of the image.
        truth: ``labels``, ``boxes``, ``crowd`` and ``masks`` (a list or None) in image coordinates.
    """

    def __init__(self, plan: ViewPlan, truth: dict):
        self._plan = plan
        self._truth = truth
        self._shifted = set(plan.shifted_views())
        self._patches = None if truth["masks"] is None else [patch(m) for m in truth["masks"]]
        self._found: dict[str, dict[str, dict]] = {}
        self._ranked: dict[str, list[tuple]] = {}

    def add(self, index: int, prediction: dict) -> None:
        """Takes a view's prediction: ``scores``, ``labels``, ``boxes``, ``masks``."""
        view = self._plan.views[index]
        reference = view == View(self._plan.crop)
        if not (reference or index in self._shifted):
            return
        truth = (self._truth[name] for name in ("labels", "boxes", "crowd"))
        truths = cut_ground_truth(*truth, self._patches, view.crop)
        detections = [prediction[name] for name in ("scores", "labels", "boxes")]
        kinds = {"box": None}
        if self._patches is not None and prediction["masks"] is not None:
            kinds["mask"] = [encode(mask) for mask in prediction["masks"]]
        for kind, masks in kinds.items():
            found = match_view(kind, *detections, masks, truths)
            if reference:
                self._found.setdefault(kind, {})["reference"] = found
            if index in self._shifted:
                self._ranked.setdefault(kind, []).append((*_rank(found), index, found))

    def result(self) -> dict:
        """``box`` and ``mask`` to ``reference``, ``worst`` and ``best`` to what was found there."""
        for kind, ranked in self._ranked.items():
            with_truth = [view for view in ranked if view[0]] or ranked
            # The first in order wins a tie, whatever order they came in.
            worst = min(with_truth, key=lambda view: (view[1], view[2]))
            best = min(with_truth, key=lambda view: (-view[1], view[2]))
            self._found.setdefault(kind, {}).update(worst=worst[3], best=best[3])
        return self._found


def has_truth(found: dict[str, dict] | None) -> bool:
    """Whether there is ground truth other than crowds in what :func:`match_view` found."""
    return found is not None and any(result["positives"] for result in found.values())


def _rank(found: dict[str, dict]) -> tuple[bool, float]:
    """Whether a view has ground truth, and what it is ranked by; rounded, so that what is equal is
    equal on every machine."""
    if has_truth(found):
        return True, round(float(AveragePrecision([found]).estimate(np.ones((1, 1)))[0]), 6)
    # On what is ignored (crowds) a detection isn't false; thresholds of IoU differ by that.
    false = [s for r in found.values() for s, bits in zip(r["scores"], r["ignored"]) if not bits]
    return False, -max(false, default=0.0)


class AveragePrecision:
    """AP over IoU 0.5:0.05:0.95 and categories, in percent: a statistic for the bootstrap.

    Interpolated precision gains a little from repeated images, so where categories have very few
    objects, intervals lie somewhat high; in differences between models this cancels.

    Args:
        found: for each image what :func:`match_view` found, or None to leave it out. Of an image
            without ground truth all detections are false.
    """

    def __init__(self, found: Sequence[dict[str, dict] | None]):
        self.images = len(found)
        self.defined = sum(entry is not None for entry in found)
        by_category: dict[str, list] = defaultdict(list)
        for image, entry in enumerate(found):
            for category, result in (entry or {}).items():
                by_category[category].append((image, result))
        self._categories = [_Category(results) for results in by_category.values()]

    def estimate(self, weights: np.ndarray) -> np.ndarray:
        counts = np.ascontiguousarray(weights.T, np.float32)  # exact: small whole numbers
        total, categories = np.zeros(len(weights)), np.zeros(len(weights))
        for category in self._categories:
            precision, present = category.estimate(counts)
            total += np.where(present, precision, 0)
            categories += present
        with np.errstate(invalid="ignore"):
            return 100 * total / categories

    def contributions(self) -> None:
        """AP is no sum over images."""

    def paired(self, other: AveragePrecision) -> tuple[AveragePrecision, AveragePrecision]:
        return self, other


class _Category:
    """The detections of one category, by descending score, up to the last correct one."""

    def __init__(self, results: list[tuple[int, dict]]):
        self.images = np.array([image for image, _ in results])
        self.positives = np.array([result["positives"] for _, result in results], np.float64)
        counts = [len(result["scores"]) for _, result in results]
        image_of = np.repeat(self.images, counts)
        scores = np.concatenate([result["scores"] for _, result in results])
        matched, ignored = (
            np.array([bits for _, result in results for bits in result[name]], np.int64)
            for name in ("matched", "ignored")
        )
        order = np.argsort(-scores, kind="mergesort")  # stable, as in pycocotools
        correct = np.flatnonzero(matched[order] & ~ignored[order])
        order = order[: correct[-1] + 1] if len(correct) else order[:0]
        self.image_of, self.matched, self.ignored = image_of[order], matched[order], ignored[order]

    def estimate(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, R), how often R resamples hold each image, to (R,) AP and whether there is any
        ground truth."""
        positives = self.positives @ counts[self.images]
        columns = max(1, _BLOCK // max(len(self.image_of), 1))
        blocks = [
            self._block(counts[:, start : start + columns], positives[start : start + columns])
            for start in range(0, counts.shape[1], columns)
        ]
        return np.concatenate(blocks), positives > 0

    def _block(self, counts: np.ndarray, positives: np.ndarray) -> np.ndarray:
        """A threshold of recall takes the highest precision at that recall or more, so every
        correct detection stands for the thresholds between the recall before it and at it."""
        positives = np.maximum(positives, 1)
        drawn = counts[self.image_of]
        total = np.zeros(len(positives))
        counted = reported = None
        for bit in _BITS:
            before, counted = counted, (self.ignored & bit) == 0
            if not np.array_equal(before, counted):  # differs between thresholds by crowds alone
                reported = np.cumsum(drawn * counted[:, None], 0)
            right = np.flatnonzero(counted & ((self.matched & bit) != 0))
            if not len(right):
                continue
            correct = np.cumsum(drawn[right], 0, dtype=np.float64)
            precision = correct / (reported[right] + np.spacing(1))
            np.maximum.accumulate(precision[::-1], 0, out=precision[::-1])
            recall = correct / positives
            reached = (100 * recall + 1e-6).astype(np.int64)  # the last threshold up to here,
            reached -= RECALLS[reached] > recall  # to the last bit as pycocotools compares
            reached[1:] -= reached[:-1].copy()
            reached[0] += 1  # the threshold 0
            total += np.einsum("dr,dr->r", precision, reached) / len(RECALLS)
        return total / len(_BITS)
