"""Shift consistency of semantic segmentation (mASSC) and what surrounds it.

ASSC of a pair is the share of overlap pixels to which both views give the same class; mASSC its
mean over an image's pairs, then over images (Zou et al., BMVC 2020, as understood: no evaluator of
theirs was published). A scorer turns the predictions on an image's views into a record of counts;
:data:`SEMANTIC` turns records into numbers with intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from aa_plugins.evaluation.agreement import by_shift, controls, in_mean, record_head
from aa_plugins.evaluation.bootstrap import Mean, Ratio
from aa_plugins.evaluation.checks import require_finite
from aa_plugins.evaluation.plan import AROUND_STRIDE
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.task import Task
from aa_plugins.evaluation.views import Box, Pair, View, ViewPlan

BANDS = (1, 3, 5, 15)
MARGINS = (0, 4, 8, 16, 32, 64)
OLD_MARGIN = 32  # of the controls, where a record's plan had none
NEARLY_ALL = 0.99  # the share of one class above which a predictor is called nearly constant


class SemanticConsistency:
    """Scores the predictions on the views of one image after the other; keeps nothing.

    Args:
        protocol: that the plans come from.
        num_classes: C.
        ignore_index: label of pixels without ground truth; not one of the classes.
        background: the class that ``foreground`` leaves out, if the dataset has one.
    """

    def __init__(
        self,
        protocol: Protocol,
        num_classes: int,
        ignore_index: int = 255,
        background: int | None = None,
    ):
        if 0 <= ignore_index < num_classes:
            raise ValueError(
                f"ignore_index is {ignore_index}, one of the {num_classes} classes; "
                "give a label that no class has, such as 255"
            )
        if background is not None and not 0 <= background < num_classes:
            raise ValueError(
                f"background is {background}; give a class from 0 to {num_classes - 1}"
            )
        self.protocol = protocol
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.background = background

    def score(
        self,
        plan: ViewPlan,
        predictions: Iterable[torch.Tensor | np.ndarray],
        ground_truth: torch.Tensor | np.ndarray | None = None,
    ) -> dict:
        """The record of one image, of JSON types.

        Its ``iou`` is that of the reference crop; a host that also predicts whole images puts the
        intersections and unions of these in its place.

        Args:
            plan: the image's plan.
            predictions: one a view, in the plan's order; a generator is read one view at a time,
                so that few views are held. Either label maps (h, w), integers, or class
                probabilities (C, h, w), floating; Jensen-Shannon divergence needs the latter.
            ground_truth: labels of the image, (H, W).

        Raises:
            ValueError: predictions that aren't finite, no probabilities, of a wrong size or
                number; labels outside of the classes. The message names the image.
        """
        truth = None if ground_truth is None else self._truth(plan, ground_truth)
        classes = np.zeros((2, self.num_classes), np.int64)
        iou = None

        def prepare(index: int, values: torch.Tensor | np.ndarray) -> _Prediction:
            nonlocal iou
            view = plan.views[index]
            prediction = self._prediction(plan, view, values)
            if truth is not None and view == View(plan.crop):
                iou = self._iou(prediction.labels, truth.labels[plan.crop.slices])
            return prediction

        pairs: list[dict] = [{}] * len(plan.pairs)
        for number, pair, a, b in plan.compared(predictions, prepare):
            pairs[number] = self._compare(plan, pair, a, b, truth, classes)
        record = {
            **record_head(plan, self.protocol),
            "pairs": {name: [pair[name] for pair in pairs] for name in pairs[0]},
            "classes": {"intersection": classes[0].tolist(), "union": classes[1].tolist()},
        }
        if iou is not None:
            record["iou"] = iou
        return record

    def _compare(
        self,
        plan: ViewPlan,
        pair: Pair,
        prediction_a: _Prediction,
        prediction_b: _Prediction,
        truth: _Truth | None,
        classes: np.ndarray,
    ) -> dict:
        """Counts of pixels of a pair; adds to (2, C) intersections and unions of classes."""
        # A roll shows all pixels in both views; what is kept from borders has borders.
        whole = plan.circular and pair.role not in AROUND_STRIDE
        region = plan.crop if whole else pair.region
        cut_a, cut_b = (_aligned(plan.views[i], region) for i in (pair.a, pair.b))
        a, b = cut_a(prediction_a.labels), cut_b(prediction_b.labels)
        equal = a == b
        counts: dict[str, float | None] = {"pixels": a.size, "equal": _count(equal)}
        for margin in MARGINS[1:]:
            inner = equal[margin : a.shape[0] - margin, margin : a.shape[1] - margin]
            counts[f"pixels_margin_{margin}"] = inner.size
            counts[f"equal_margin_{margin}"] = _count(inner)
        if self.background is not None:
            foreground = (a != self.background) | (b != self.background)
            counts["pixels_foreground"] = _count(foreground)
            counts["equal_foreground"] = _count(equal & foreground)
        if truth is not None:
            labels, bands = truth.labels[region.slices], truth.bands[region.slices]
            within = np.bincount(bands.ravel(), minlength=len(BANDS) + 2)
            agreeing = np.bincount(bands[equal], minlength=len(BANDS) + 2)
            counts["pixels_valid"] = int(within[:-1].sum())
            counts["equal_valid"] = int(agreeing[:-1].sum())
            counts["correct"] = _count(equal & (a == labels))
            for band, pixels, same in zip(BANDS, within.cumsum(), agreeing.cumsum()):
                counts[f"pixels_band_{band}"] = int(pixels)
                counts[f"equal_band_{band}"] = int(same)
        p, q = prediction_a.probabilities, prediction_b.probabilities
        if p is not None and q is not None:
            middle = (cut_a(p) + cut_b(q)) / 2
            entropies = cut_a(prediction_a.entropy) + cut_b(prediction_b.entropy)
            divergence = torch.special.entr(middle).sum(0) - entropies / 2
            counts["divergence"] = max(0.0, float(divergence.double().mean()))
        if pair.role == "mean":
            size = self.num_classes
            intersection = np.bincount(a[equal], minlength=size)
            either = np.bincount(a.ravel(), minlength=size) + np.bincount(b.ravel(), minlength=size)
            classes += np.stack([intersection, either - intersection])
        return counts

    def _prediction(
        self, plan: ViewPlan, view: View, values: torch.Tensor | np.ndarray
    ) -> _Prediction:
        size = (view.crop.height, view.crop.width)
        values = _tensor(values)
        if not values.is_floating_point():
            return _Prediction(self._labels(plan, values, size, "prediction"))
        where = f"image {plan.image_id!r}: a prediction"
        if tuple(values.shape) != (self.num_classes, *size):
            raise ValueError(
                f"{where} has shape {tuple(values.shape)}; give probabilities of shape "
                f"{(self.num_classes, *size)} or integer labels of shape {size}"
            )
        values = values.float()
        total = values.sum(0)  # finite only where every class is
        require_finite(total, plan.image_id)
        if values.amin() < 0 or (total - 1).abs().max() > 0.02:
            raise ValueError(f"{where} holds no probabilities; apply a softmax over the classes")
        labels = values.max(0).indices.numpy().astype(self._dtype)  # far faster than argmax(0)
        return _Prediction(labels, values, torch.special.entr(values).sum(0))

    def _truth(self, plan: ViewPlan, ground_truth: torch.Tensor | np.ndarray) -> _Truth:
        labels = self._labels(plan, ground_truth, (plan.height, plan.width), "ground truth")
        return _Truth(labels, _bands(labels, self.ignore_index))

    def _labels(
        self,
        plan: ViewPlan,
        values: torch.Tensor | np.ndarray,
        size: tuple[int, int],
        what: str,
    ) -> np.ndarray:
        values = _tensor(values).numpy()
        where = f"image {plan.image_id!r}: {what}"
        if values.shape != size or values.dtype.kind not in "iub":
            raise ValueError(
                f"{where} of {values.dtype} has shape {values.shape}; give integer labels of "
                f"shape {size}"
            )
        outside = (values < 0) | (values >= self.num_classes)
        if what == "ground truth":
            outside &= values != self.ignore_index
        if outside.any():
            raise ValueError(
                f"{where} has label {values[outside][0]}, outside of the classes 0 to "
                f"{self.num_classes - 1}; map it to a class or to {self.ignore_index} (ignore)"
            )
        return values.astype(self._dtype)

    @property
    def _dtype(self) -> type:
        return np.uint8 if max(self.num_classes, self.ignore_index) < 256 else np.int32

    def _iou(self, labels: np.ndarray, truth: np.ndarray) -> dict:
        """Intersections and unions of classes over the pixels with ground truth."""
        valid = truth != self.ignore_index
        labels, truth = labels[valid], truth[valid]
        size = self.num_classes
        intersection = np.bincount(truth[labels == truth], minlength=size)
        either = np.bincount(truth, minlength=size) + np.bincount(labels, minlength=size)
        union = either - intersection
        return {"intersection": intersection.tolist(), "union": union.tolist()}


def statistics(records: list[dict]) -> dict:
    """Sorted records to the tree of statistics.

    In percent but for ``divergence`` (nats). What needs ground truth, probabilities or a background
    class is left out without.

    ================== ======================================================================
    ``mIoU``            of the same weights
    ``mASSC``           agreement, all pixels
    ``valid``           agreement without ignored pixels
    ``foreground``      agreement where either view predicts another class than the background
    ``class_mean``      IoU of each class between the two label maps, pixels summed over all mean
                        pairs and images, mean over classes
    ``fidelity``        equal and correct, share of the pixels with ground truth
    ``divergence``      mean Jensen-Shannon divergence between the class probabilities
    ``worst``           agreement of the worst pair of each image
    ``boundary``        agreement within 1, 3, 5, 15 pixels of a ground-truth boundary (the pixels
                        beside it are within 1), ignored pixels left out
    ``interior``        agreement at least that many pixels from the overlap's edge
    ``shift``           agreement at each shift "dy,dx"; at each distance where shifts are random
    ``controls``        agreement at shift 0 (``noise_floor``), S (``same_phase``), S ± 1 (``near``)
                        and S ± S/2 (``half``), the last three at the margin from borders
    ``aliasing_loss``   agreement at S less the mean of those at S ± 1 and S ± S/2
    ================== ======================================================================
    """

    def share(name: str, suffix: str = "", reduce: Callable = np.mean) -> Mean:
        """Mean over the mean pairs of an image of one count over another."""
        values = []
        for record in records:
            shares = _shares(record, name, suffix)
            chosen = [shares[i] for i in in_mean(record) if shares[i] is not None]
            values.append(float(reduce(chosen)) if chosen else None)
        return Mean(values, 100)

    def pooled(name: str) -> Ratio:
        parts = [[record[name][part] for record in records] for part in ("intersection", "union")]
        return Ratio(*parts, 100)

    known = records[0]["pairs"]
    agreement = [_shares(record, "equal") for record in records]
    tree: dict = {}
    if all("iou" in record for record in records):
        tree["mIoU"] = pooled("iou")
    tree["mASSC"] = share("equal")
    if "correct" in known:
        tree["valid"] = share("equal", "_valid")
    if "equal_foreground" in known:
        tree["foreground"] = share("equal", "_foreground")
    tree["class_mean"] = pooled("classes")
    if "correct" in known:
        tree["fidelity"] = share("correct", "_valid")
    if "divergence" in known:
        tree["divergence"] = Mean(
            [float(np.mean([r["pairs"]["divergence"][i] for i in in_mean(r)])) for r in records]
        )
    tree["worst"] = share("equal", reduce=np.min)
    if "correct" in known:
        tree["boundary"] = {str(band): share("equal", f"_band_{band}") for band in BANDS}
    tree["interior"] = {
        str(margin): share("equal", f"_margin_{margin}" if margin else "") for margin in MARGINS
    }
    inside = [_inside(record) for record in records]
    return {**tree, "shift": by_shift(records, agreement), **controls(records, inside)}


def constant(records: list[dict]) -> dict[str, str]:
    """Whether nearly all of an image is one class, on average over images."""
    shares = []
    for record in records:
        classes = record["classes"]
        # Pixels of both views: what they share counts in both.
        pixels = np.add(classes["intersection"], classes["union"])
        shares.append(pixels.max() / max(pixels.sum(), 1))
    share = float(np.mean(shares))
    if share < NEARLY_ALL:
        return {}
    return {"mASSC": f"nearly constant: {100 * share:.1f} % of an image are one class"}


def _shares(record: dict, name: str, suffix: str = "") -> list[float | None]:
    """For each pair, the count ``name`` over the pixels; None where there are no pixels."""
    pairs = record["pairs"]
    counts = pairs[name if name == "correct" else name + suffix]
    return [n / all_ if all_ else None for n, all_ in zip(counts, pairs["pixels" + suffix])]


def _inside(record: dict) -> list[float | None]:
    """Agreement of each pair, that of the controls at the margin from borders. Records from before
    plans kept a margin scored these pairs on one region, and its margins apart."""
    kept = "margin" in record or f"pixels_margin_{OLD_MARGIN}" not in record["pairs"]
    return _shares(record, "equal", "" if kept else f"_margin_{OLD_MARGIN}")


@dataclass
class _Prediction:
    labels: np.ndarray  # (h, w)
    probabilities: torch.Tensor | None = None  # (C, h, w)
    entropy: torch.Tensor | None = None  # (h, w)


@dataclass
class _Truth:
    labels: np.ndarray  # (H, W)
    bands: np.ndarray  # (H, W): index of the narrowest band, one more if none, two if ignored


def _tensor(values: torch.Tensor | np.ndarray) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu()
    return torch.from_numpy(np.require(values, requirements="W"))  # torch wants writeable arrays


def _aligned(view: View, region: Box) -> Callable:
    """Cuts a map (..., h, w) of a view to a region of the image."""

    def cut(values):
        if not any(view.roll):
            return values[(..., *view.box(region).slices)]
        roll = torch.roll if isinstance(values, torch.Tensor) else np.roll
        values = roll(values, view.roll, (-2, -1))
        return values[(..., *region.moved(-view.crop.top, -view.crop.left).slices)]

    return cut


def _bands(labels: np.ndarray, ignore_index: int) -> np.ndarray:
    """Boundary bands: a pixel with a 4-neighbour of another label, ignored ones included, is at
    distance 1; others at 1 plus their Euclidean distance to the nearest such pixel."""
    inner = np.ones_like(labels, np.uint8)
    for one, other in (
        (np.s_[1:, :], np.s_[:-1, :]),
        (np.s_[:, 1:], np.s_[:, :-1]),
    ):
        differs = labels[one] != labels[other]
        inner[one][differs] = 0
        inner[other][differs] = 0
    if inner.all():
        bands = np.full(labels.shape, len(BANDS), np.uint8)
    else:
        distance = 1 + cv2.distanceTransform(inner, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        bands = np.searchsorted(np.array(BANDS, np.float32) + 1e-3, distance).astype(np.uint8)
    bands[labels == ignore_index] = len(BANDS) + 1
    return bands


def _count(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


SEMANTIC = Task(
    name="semantic",
    scorer=SemanticConsistency,
    statistics=statistics,
    columns=("mIoU", "mASSC", "controls/same_phase", "aliasing_loss", "fidelity"),
    constant=constant,
)
