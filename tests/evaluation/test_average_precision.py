import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from aa_plugins.evaluation import Box
from aa_plugins.evaluation.average_precision import (
    KINDS,
    AveragePrecision,
    cut_ground_truth,
    match_view,
)
from aa_plugins.evaluation.bootstrap import resampled_weights
from aa_plugins.evaluation.matching import encode, patch

SIZE = (60, 70)
FRAME = Box(0, 0, *SIZE)


def rectangle(box):
    mask = np.zeros(SIZE, bool)
    x0, y0, x1, y1 = np.round(box).astype(int)
    mask[max(y0, 0) : y1, max(x0, 0) : x1] = True
    return mask


def dataset(seed, images=6):
    """Ground truth with crowds, and detections: hits, misses, near misses and equal scores."""
    random = np.random.default_rng(seed)
    truths, detections = [], []
    for _ in range(images):
        count = random.integers(0, 6)
        corner, size = random.uniform(0, 40, (count, 2)), random.uniform(5, 25, (count, 2))
        boxes = np.concatenate([corner, corner + size], 1).reshape(-1, 4)
        labels = random.integers(0, 3, count)
        truths.append((labels, boxes, random.random(count) < 0.2))
        kept = random.random(count) < 0.8
        boxes = np.concatenate([boxes[kept], random.uniform(0, 30, (3, 4)) + [0, 0, 31, 31]])
        boxes = boxes + random.normal(0, 1.0, boxes.shape)
        labels = np.concatenate([labels[kept], random.integers(0, 3, 3)])
        labels[random.random(len(labels)) < 0.2] = 0
        scores = random.choice([0.1, 0.2, 0.3, 0.5, 0.7, 0.9], len(labels))
        detections.append((scores, labels, boxes))
    return truths, detections


def found(kind, truth, detection):
    labels, boxes, crowd = truth
    patches = [patch(rectangle(box)) for box in boxes] if kind == "mask" else None
    truths = cut_ground_truth(labels, boxes, crowd, patches, FRAME)
    masks = [encode(rectangle(box)) for box in detection[2]]
    return match_view(kind, *detection, masks, truths)


def reference(kind, truths, detections):
    """AP as the COCO tools compute it for a whole dataset."""
    annotations, results = [], []
    for image, ((labels, boxes, crowd), (scores, classes, hits)) in enumerate(
        zip(truths, detections)
    ):
        for label, (x0, y0, x1, y1), is_crowd in zip(labels, boxes, crowd):
            mask = encode(rectangle((x0, y0, x1, y1)))
            x1, y1 = min(x1, SIZE[1]), min(y1, SIZE[0])
            entry = {"bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": int(is_crowd), "area": 100}
            entry.update(segmentation=mask, category_id=int(label), image_id=image)
            annotations.append({**entry, "id": len(annotations) + 1})
        for score, label, (x0, y0, x1, y1) in zip(scores, classes, hits):
            mask = encode(rectangle((x0, y0, x1, y1)))
            entry = {"bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
            results.append({**entry, "category_id": int(label), "image_id": image})
            if kind == "mask":
                del results[-1]["bbox"]
                results[-1]["segmentation"] = mask
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(len(truths))],
            "annotations": annotations,
            "categories": [{"id": i, "name": str(i)} for i in range(3)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), KINDS[kind])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[0]


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", range(6))
def test_against_the_coco_tools(kind, seed):
    truths, detections = dataset(seed)
    entries = [found(kind, *pair) for pair in zip(truths, detections)]
    (value,) = AveragePrecision(entries).estimate(np.ones((1, len(entries))))
    assert value == pytest.approx(reference(kind, truths, detections), abs=1e-9)
    assert 0 < value < 100


def test_a_resample_is_a_dataset_with_repeated_images():
    truths, detections = dataset(7)
    random = np.random.default_rng(0)  # equal scores would be ranked by the order of images
    detections = [(random.random(len(scores)), *rest) for scores, *rest in detections]
    statistic = AveragePrecision([found("box", *pair) for pair in zip(truths, detections)])
    for weights in resampled_weights(len(truths), 15, seed=0):
        for row, value in zip(weights, statistic.estimate(weights)):
            drawn = np.repeat(np.arange(len(truths)), row.astype(int))
            expected = reference("box", [truths[i] for i in drawn], [detections[i] for i in drawn])
            assert value == pytest.approx(expected, abs=1e-9)


def test_images_left_out():
    truths, detections = dataset(3)
    entries = [found("box", *pair) for pair in zip(truths, detections)]
    some = AveragePrecision([None, *entries[1:]])
    assert (some.images, some.defined) == (6, 5)
    weights = np.array([[5, 1, 1, 1, 1, 1.0]])
    assert some.estimate(weights) == AveragePrecision(entries[1:]).estimate(np.ones((1, 5)))
    assert np.isnan(AveragePrecision([None, None]).estimate(np.ones((1, 2))))


def test_ground_truth_cut_to_a_view():
    boxes = np.array([[0, 0, 20, 10], [30, 5, 33, 8], [5, 40, 9, 44]], float)
    patches = [patch(rectangle(box)) for box in boxes]
    crop = Box(4, 10, 40, 60)
    for chosen in (patches, None):
        (truth,) = cut_ground_truth([1, 1, 2], boxes, [False] * 3, chosen, crop)[1]
        assert truth["bbox"] == [0, 0, 10, 6]
        assert truth["area"] == 60
        assert truth["id"] == 1  # the second has 9 pixels left, the third none
