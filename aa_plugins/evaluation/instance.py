"""Shift consistency of instance segmentation and detection (mAISC) and what surrounds it.

AISC of a pair of views: cut the instances of both to the overlap, match those of the same class one
to one by descending IoU, and count the matches above IoU 0.9: 2 matched / (|A| + |B|). mAISC is its
mean over an image's pairs, then over images. The idea is Zou et al.'s (BMVC 2020), who published no
evaluator; the symmetric form, the class condition and the empty cases are ours. Everything is
measured for masks and, apart, for boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from aa_plugins.evaluation.agreement import by_shift, controls, in_mean, mean, record_head
from aa_plugins.evaluation.average_precision import AveragePrecision, ViewPrecision, has_truth
from aa_plugins.evaluation.bootstrap import Mean, Ratio
from aa_plugins.evaluation.checks import require_finite
from aa_plugins.evaluation.matching import (
    Instances,
    Overlaps,
    box_overlaps,
    mask_overlaps,
    match,
    patch,
)
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.task import Task
from aa_plugins.evaluation.views import Box, Pair, View, ViewPlan

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
HEADLINE_IOU = 0.9
SCORES = (0.05, 0.3, 0.5, 0.7)
HEADLINE_SCORE = 0.5
NEARLY_ALL = 0.99  # the share of images with the same instances that is called nearly constant
SAME_PLACE = 0.02  # of the view's size: how far two boxes at the same place differ at most
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}


class InstanceConsistency:
    """Scores the predictions on the views of one image after the other; keeps nothing.

    Args:
        protocol: that the plans come from.
        num_classes: labels run from 0 to ``num_classes`` - 1.
    """

    def __init__(self, protocol: Protocol, num_classes: int):
        self.protocol = protocol
        self.num_classes = num_classes

    def score(
        self, plan: ViewPlan, predictions: Iterable[dict], ground_truth: dict | None = None
    ) -> dict:
        """The record of one image, of JSON types.

        Args:
            plan: the image's plan.
            predictions: one a view, in the plan's order (a generator is read one view at a time):
                ``scores`` (n,), ``labels`` (n,), ``boxes`` (n, 4) as x0, y0, x1, y1 in pixels of
                the view and ``masks``, either n COCO run lengths, (n, h, w) booleans, or None.
            ground_truth: ``labels``, ``boxes``, ``masks`` alike, in pixels of the image, and
                ``crowd`` (n,) booleans if there are any; gives the worst- and best-view AP. Not
                used by circular protocols, whose views cut objects at the seam.

        Raises:
            ValueError: values that aren't finite, of a wrong size or number, or labels outside of
                the classes. The message names the image.
        """
        truth = None
        if ground_truth is not None and not plan.circular:
            truth = self._checked(plan, ground_truth, (plan.height, plan.width), "ground truth")
        precision = None if truth is None else ViewPrecision(plan, truth)

        reference: dict = {}

        def prepare(index: int, prediction: dict) -> Instances:
            crop = plan.views[index].crop
            prediction = self._checked(plan, prediction, (crop.height, crop.width), "prediction")
            if precision is not None:
                precision.add(index, prediction)
            if plan.views[index] == View(plan.crop):
                reference.update(_places(prediction, crop))
            return _instances(prediction)

        pairs: list[dict] = [{}] * len(plan.pairs)
        for number, pair, a, b in plan.compared(predictions, prepare):
            pairs[number] = self._compare(plan, pair, a, b)
        record = record_head(plan, self.protocol)
        for kind in pairs[0]:
            columns = pairs[0][kind]
            record[kind] = {name: [pair[kind][name] for pair in pairs] for name in columns}
        if reference:
            record["reference"] = reference
        if precision is not None:
            record["AP"] = precision.result()
        return record

    def _compare(self, plan: ViewPlan, pair: Pair, a: Instances, b: Instances) -> dict:
        """Counts of a pair for boxes and for masks."""
        if (a.patches is None) != (b.patches is None):
            raise ValueError(
                f"image {plan.image_id!r}: masks in one view but not in another; give masks in all "
                "views (an empty list where nothing is found) or in none"
            )
        (boxes_a, areas_a), (boxes_b, areas_b) = a.cut_boxes(pair.box_a), b.cut_boxes(pair.box_b)
        overlaps = box_overlaps(boxes_a.boxes, boxes_b.boxes)
        counts = {"box": _counts(boxes_a, areas_a, boxes_b, areas_b, overlaps)}
        if a.patches is not None:
            (masks_a, areas_a), (masks_b, areas_b) = (
                a.cut_masks(pair.box_a),
                b.cut_masks(pair.box_b),
            )
            overlaps = mask_overlaps(masks_a.patches, areas_a, masks_b.patches, areas_b)
            counts["mask"] = _counts(masks_a, areas_a, masks_b, areas_b, overlaps)
        return counts

    def _checked(self, plan: ViewPlan, values: dict, size: tuple[int, int], what: str) -> dict:
        """Arrays of the values, checked; masks as they are."""
        where = f"image {plan.image_id!r}: {what}"
        labels = _array(values["labels"]).reshape(-1)
        found = {
            "labels": labels.astype(np.int64),
            "scores": _array(values.get("scores", np.ones(len(labels)))).astype(np.float64),
            "boxes": _array(values["boxes"]).astype(np.float64).reshape(-1, 4),
            "crowd": _array(values.get("crowd", np.zeros(len(labels)))).astype(bool),
            "masks": values.get("masks"),
        }
        for name, column in found.items():
            if column is not None and len(column) != len(labels):
                raise ValueError(
                    f"{where} has {len(labels)} labels but {len(column)} {name}; give one each"
                )
        for name in ("scores", "boxes"):
            require_finite(found[name], plan.image_id, f"{what} ({name})")
        outside = (labels < 0) | (labels >= self.num_classes)
        if outside.any():
            raise ValueError(
                f"{where} has label {labels[outside][0]}, outside of the classes 0 to "
                f"{self.num_classes - 1}; map the dataset's category ids to classes"
            )
        if found["masks"] is not None and not isinstance(found["masks"], (list, tuple)):
            found["masks"] = list(_array(found["masks"]).astype(bool, copy=False))
        for mask in found["masks"] or []:
            shape = tuple(mask["size"]) if isinstance(mask, dict) else tuple(mask.shape)
            if shape != size:
                raise ValueError(f"{where} has a mask of {shape}; give masks of {size}")
        return found


def statistics(records: list[dict]) -> dict:
    """Sorted records to the tree of statistics, under ``"mask"``, where there are, and ``"box"``.

    In percent but for the jitters. Scores of at least 0.5 and IoU above 0.9 unless stated.

    ================== ======================================================================
    ``AP``              COCO AP of the ``reference``, the ``worst`` and the ``best`` view of each
                        image, images without ground truth in the view left out (Zou et al.)
    ``AP_all``          the same with these images, whose detections are all false (COCO)
    ``mAISC``           2 matched / (|A| + |B|)
    ``pooled``          the same, instances summed over all mean pairs and images
    ``zou``             matched / |A|
    ``worst``           AISC of the worst pair of each image
    ``iou``             AISC at IoU above 0.5 ... 0.95, and the ``mean`` of these
    ``score``           AISC of instances scored at least 0.05, 0.3, 0.5, 0.7
    ``size``            AISC of small, medium and large instances (COCO's areas, after cutting)
    ``class_flips``     share of class-agnostic matches (IoU above 0.5) whose classes differ
    ``lost``, ``found`` share of A, of B, without a class-agnostic match
    ``centre_jitter``   mean distance of the box centres of same-class matches at IoU above 0.5,
                        in pixels (boxes)
    ``scale_jitter``    mean \\|ln(scale ratio)\\| of the same, scale = sqrt(box area) (boxes)
    ``shift``, ``controls``, ``aliasing_loss``: as for semantic segmentation
    ================== ======================================================================
    """
    return {kind: _of_kind(records, kind) for kind in _kinds(records)}


def counts(records: list[dict]) -> dict[str, int]:
    """``images``, mean ``pairs``, how many of them are left out as both views are ``empty``, and
    ``images_without_ground_truth`` in the reference view."""
    found = {"images": len(records), "pairs": sum(len(in_mean(record)) for record in records)}
    for kind in _kinds(records):
        found[f"empty_{kind}_pairs"] = sum(
            record[kind]["a"][i] + record[kind]["b"][i] == 0
            for record in records
            for i in in_mean(record)
        )
    if all("AP" in record for record in records):
        found["images_without_ground_truth"] = sum(
            not any(has_truth(views.get("reference")) for views in record["AP"].values())
            for record in records
        )
    return found


def constant(records: list[dict]) -> dict[str, str]:
    """Whether nothing is found, or the same at the same place of the view in every image."""
    kinds = _kinds(records)
    if not any(sum(record["box"]["a"]) + sum(record["box"]["b"]) for record in records):
        return {f"{kind}/mAISC": "nothing is found" for kind in kinds}
    found = [record.get("reference") for record in records]
    if len(records) < 2 or not all(found):
        return {}
    first = found[0]
    same = [
        one["labels"] == first["labels"]
        and bool(np.all(np.abs(np.subtract(one["boxes"], first["boxes"])) <= SAME_PLACE))
        for one in found
    ]
    share = sum(same) / len(same)
    if not first["labels"] or share < NEARLY_ALL:
        return {}
    remark = f"nearly constant: the same instances in {100 * share:.1f} % of the images"
    return {f"{kind}/mAISC": remark for kind in kinds}


def _kinds(records: list[dict]) -> list[str]:
    return [kind for kind in ("mask", "box") if all(kind in record for record in records)]


def _of_kind(records: list[dict], kind: str) -> dict:
    def agreements(matched: str = "matched", a: str = "a", b: str = "b") -> list:
        return [
            [_f1(*counts) for counts in zip(*(record[kind][name] for name in (matched, a, b)))]
            for record in records
        ]

    def over_images(values: list, reduce: Callable = mean) -> Mean:
        """Mean over images of the mean over an image's defined mean pairs."""
        reduced = []
        for record, pairs in zip(records, values):
            defined = [pairs[i] for i in in_mean(record) if pairs[i] is not None]
            reduced.append(reduce(defined) if defined else None)
        return Mean(reduced, 100)

    def pooled(above: str, below: Callable[[dict], list], scale: float = 100) -> Ratio:
        """Sums over all mean pairs of an image, divided after summing over images."""
        sums = []
        for record in records:
            columns = (record[kind][above], below(record[kind]))
            sums.append([sum(column[i] for i in in_mean(record)) for column in columns])
        return Ratio(*zip(*sums), scale)

    aisc = agreements()
    curve = {iou: agreements(f"matched_iou_{iou:.2f}") for iou in IOUS}
    averaged = [
        [None if None in values else mean(values) for values in zip(*pairs)]
        for pairs in zip(*curve.values())
    ]
    zou = [
        [_share(*counts) for counts in zip(*(record[kind][n] for n in ("matched", "a", "b")))]
        for record in records
    ]
    tree: dict = {}
    if all("AP" in record for record in records):
        views = [record["AP"].get(kind, {}) for record in records]
        tree["AP"], tree["AP_all"] = {}, {}
        for which in ("reference", "worst", "best"):
            found = [view.get(which) for view in views]
            if any(map(has_truth, found)):
                tree["AP"][which] = AveragePrecision([f if has_truth(f) else None for f in found])
                # Records from before images without ground truth were kept lack them.
                if None not in found:
                    tree["AP_all"][which] = AveragePrecision(found)
    tree["mAISC"] = over_images(aisc)
    tree["pooled"] = pooled("matched", lambda r: [(a + b) / 2 for a, b in zip(r["a"], r["b"])])
    tree["zou"] = over_images(zou)
    tree["worst"] = over_images(aisc, min)
    tree["iou"] = {f"{iou:.2f}": over_images(values) for iou, values in curve.items()}
    tree["iou"]["mean"] = over_images(averaged)
    tree["score"] = {
        str(t): over_images(agreements(*(f"{name}_score_{t}" for name in ("matched", "a", "b"))))
        for t in SCORES
    }
    # Matches are counted on either side, as a match may cross a limit of sizes.
    tree["size"] = {
        size: over_images(
            [
                [m / n if n else None for m, n in zip(r[f"matched_{size}"], r[f"both_{size}"])]
                for r in (record[kind] for record in records)
            ]
        )
        for size in SIZES
    }
    tree["class_flips"] = pooled("flips", lambda r: r["matched_agnostic"])
    tree["lost"] = pooled("lost", lambda r: r["a"])
    tree["found"] = pooled("found", lambda r: r["b"])
    if kind == "box":
        tree["centre_jitter"] = pooled("centre", lambda r: r["matched_iou_0.50"], 1)
        tree["scale_jitter"] = pooled("log_scale", lambda r: r["matched_iou_0.50"], 1)
    return {**tree, "shift": by_shift(records, aisc), **controls(records, aisc)}


def _f1(matched: int, a: int, b: int) -> float | None:
    return 2 * matched / (a + b) if a + b else None


def _share(matched: int, a: int, b: int) -> float | None:
    """matched / |A|; undefined if both are empty, 0 if A alone is."""
    return (matched / a if a else 0.0) if a + b else None


def _counts(
    a: Instances, areas_a: np.ndarray, b: Instances, areas_b: np.ndarray, overlaps: Overlaps
) -> dict[str, float]:
    """What a pair's record holds, from two sets of cut instances and their overlaps."""
    i, j, iou = overlaps
    same = a.labels[i] == b.labels[j]
    lower_score = np.minimum(a.scores[i], b.scores[j])
    counts: dict[str, float] = {}
    for t in SCORES:
        counts[f"a_score_{t}"] = int((a.scores >= t).sum())
        counts[f"b_score_{t}"] = int((b.scores >= t).sum())
        chosen = match(overlaps, same & (lower_score >= t))
        counts[f"matched_score_{t}"] = int((iou[chosen] > HEADLINE_IOU).sum())
    certain_a, certain_b = a.scores >= HEADLINE_SCORE, b.scores >= HEADLINE_SCORE
    counts["a"], counts["b"] = int(certain_a.sum()), int(certain_b.sum())
    certain = lower_score >= HEADLINE_SCORE
    chosen = match(overlaps, same & certain)
    for threshold in IOUS:
        counts[f"matched_iou_{threshold:.2f}"] = int((iou[chosen] > threshold).sum())
    best = chosen[iou[chosen] > HEADLINE_IOU]
    counts["matched"] = len(best)
    matched_areas = np.concatenate([areas_a[i[best]], areas_b[j[best]]])
    all_areas = np.concatenate([areas_a[certain_a], areas_b[certain_b]])
    for size, (low, high) in SIZES.items():
        for name, areas in ("matched", matched_areas), ("both", all_areas):
            counts[f"{name}_{size}"] = int(((areas >= low) & (areas < high)).sum())
    agnostic = match(overlaps, certain)
    counts["matched_agnostic"] = len(agnostic)
    counts["flips"] = int((~same[agnostic]).sum())
    counts["lost"] = counts["a"] - len(agnostic)
    counts["found"] = counts["b"] - len(agnostic)
    if a.patches is None:
        boxes_a, boxes_b = a.boxes[i[chosen]], b.boxes[j[chosen]]
        centres = (boxes_a[:, :2] + boxes_a[:, 2:] - boxes_b[:, :2] - boxes_b[:, 2:]) / 2
        counts["centre"] = float(np.hypot(*centres.T).sum())
        ratios = areas_a[i[chosen]] / areas_b[j[chosen]]
        counts["log_scale"] = float(np.abs(np.log(ratios)).sum() / 2)
    return counts


def _instances(prediction: dict) -> Instances:
    """What any score threshold keeps."""
    kept = prediction["scores"] >= min(SCORES)
    columns = (prediction[name][kept] for name in ("scores", "labels", "boxes"))
    masks = prediction["masks"]
    return Instances(
        *columns,
        None if masks is None else [patch(mask) for mask, keep in zip(masks, kept) if keep],
    )


def _places(prediction: dict, crop: Box) -> dict:
    """Labels and boxes of the certain instances of a view, in order of place; boxes in thousandths
    of the view's size."""
    certain = prediction["scores"] >= HEADLINE_SCORE
    size = [crop.width, crop.height] * 2
    boxes = np.round(prediction["boxes"][certain] / size, 3)
    rows = sorted(zip(prediction["labels"][certain].tolist(), boxes.tolist()))
    return {"labels": [label for label, _ in rows], "boxes": [box for _, box in rows]}


def _array(values: torch.Tensor | np.ndarray | list) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


INSTANCE = Task(
    name="instance",
    scorer=InstanceConsistency,
    statistics=statistics,
    columns=(
        "mask/AP/reference",
        "mask/mAISC",
        "mask/controls/same_phase",
        "mask/aliasing_loss",
        "box/AP/reference",
        "box/mAISC",
    ),
    constant=constant,
    counts=counts,
)
