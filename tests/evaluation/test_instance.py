import json

import numpy as np
import pytest
import torch
from pycocotools import mask as rle_codec

from aa_plugins.evaluation import Box, InstanceConsistency, Protocol, preset
from aa_plugins.evaluation.instance import INSTANCE

CLASSES = 4
ONE = Protocol(stride=8, shifts=((4, 0),), controls=False)  # overlap: all but four rows
SIZE = (72, 72)


def thing(top, left, height=12, width=12, label=0, score=0.9):
    """An object in image coordinates."""
    return {"box": Box(top, left, top + height, left + width), "label": label, "score": score}


def seen(view, things, form="rle"):
    """What a perfect detector reports of the things in a view."""
    shape = (view.crop.height, view.crop.width)
    found = {"scores": [], "labels": [], "boxes": [], "masks": []}
    for item in things:
        box = item["box"].intersection(view.crop)
        if box.height and box.width:
            box = view.box(box)
            mask = np.zeros(shape, np.uint8)
            mask[box.slices] = 1
            found["scores"].append(item["score"])
            found["labels"].append(item["label"])
            found["boxes"].append([box.left, box.top, box.right, box.bottom])
            found["masks"].append(mask)
    if form == "rle":
        found["masks"] = [rle_codec.encode(np.asfortranarray(mask)) for mask in found["masks"]]
    elif form == "tensor":
        found["masks"] = torch.tensor(np.array(found["masks"]).reshape(-1, *shape), dtype=bool)
        found["boxes"] = torch.tensor(found["boxes"], dtype=torch.float32).reshape(-1, 4)
        found["scores"] = torch.tensor(found["scores"])
    else:
        del found["masks"]
    return found


def score(a, b, image_id=0, protocol=ONE, truth=None, form="rle"):
    """The record of an image on whose two views a detector finds the things a and b."""
    plan = protocol.plan(*SIZE, image_id)
    predictions = [seen(view, things, form) for view, things in zip(plan.views, (a, b))]
    scorer = InstanceConsistency(protocol, CLASSES)
    record = scorer.score(plan, predictions, truth and ground_truth(truth))
    return json.loads(json.dumps(record, allow_nan=False))


def ground_truth(things, crowd=()):
    view = type("View", (), {"crop": Box(0, 0, *SIZE), "box": staticmethod(lambda box: box)})
    found = seen(view, things)
    return {**found, "crowd": [number in crowd for number in range(len(things))]}


def aisc(a, b, name="mAISC", kind="mask", **options):
    entry = INSTANCE.summarise([score(a, b, **options)])[kind]
    for part in name.split("/"):
        entry = entry[part]
    return entry["value"]


A, B, C = thing(20, 10), thing(20, 40, 14, 9), thing(45, 20, 10, 20, label=2)
THINGS = [A, B, C]


@pytest.mark.parametrize("form", ["rle", "tensor"])
@pytest.mark.parametrize("kind", ["mask", "box"])
def test_identical_predictions(kind, form):
    found = INSTANCE.summarise([score(THINGS, THINGS, form=form)])[kind]
    for name in ("mAISC", "pooled", "zou", "worst"):
        assert found[name]["value"] == 100
    assert {entry["value"] for entry in found["iou"].values()} == {100}
    assert found["class_flips"]["value"] == found["lost"]["value"] == found["found"]["value"] == 0
    assert found["shift"]["4,0"]["value"] == 100
    if kind == "box":
        assert found["centre_jitter"]["value"] == found["scale_jitter"]["value"] == 0


def test_boxes_alone():
    record = score(THINGS, THINGS[:2], form=None)
    assert "mask" not in record
    assert INSTANCE.summarise([record])["box"]["mAISC"]["value"] == pytest.approx(80)


@pytest.mark.parametrize("kind", ["mask", "box"])
def test_one_object_lost(kind):
    assert aisc(THINGS, [A, B], kind=kind) == pytest.approx(100 * 4 / 5)
    assert aisc(THINGS, [A, B], "zou", kind) == pytest.approx(100 * 2 / 3)
    assert aisc([A, B], THINGS, "zou", kind) == 100  # the one-sided ratio doesn't see what is new
    assert aisc(THINGS, [A, B], "lost", kind) == pytest.approx(100 / 3)
    assert aisc(THINGS, [A, B], "found", kind) == 0
    assert aisc([A, B], THINGS, "found", kind) == pytest.approx(100 / 3)


def test_a_class_flip():
    flipped = [A, {**B, "label": 3}, C]
    assert aisc(THINGS, flipped) == pytest.approx(100 * 4 / 6)
    assert aisc(THINGS, flipped, "class_flips") == pytest.approx(100 / 3)
    assert aisc(THINGS, flipped, "lost") == 0


def test_empty_pairs():
    both, one = score([], [], "both"), score(THINGS, [], "one")
    full = score(THINGS, THINGS, "full")
    found = INSTANCE.summarise([both, one, full])
    assert found["mask"]["mAISC"]["value"] == 50
    assert found["mask"]["mAISC"]["images"] == 2
    assert found["mask"]["zou"]["value"] == 50
    assert found["mask"]["pooled"]["value"] == pytest.approx(100 * 6 / 9)
    assert found["counts"] == {
        "images": 3,
        "pairs": 3,
        "empty_mask_pairs": 1,
        "empty_box_pairs": 1,
    }
    assert aisc([], THINGS) == 0
    assert aisc([], THINGS, "zou") == 0


def test_masks_are_cut_at_the_overlap():
    plan = ONE.plan(*SIZE)
    overlap = plan.pairs[0].region
    assert (plan.crop.top, overlap.top) == (4, 8)
    # The first view sees rows 4 to 24 of it, the second rows 8 to 24: equal where both look.
    assert aisc([thing(0, 10, 24)], [thing(0, 10, 24)]) == 100
    # Two rows of four pixels inside: less than 10 pixels, dropped from both.
    edge = thing(2, 40, 8, 4)
    record = score([A, edge], [A, edge])
    assert (record["mask"]["a"], record["mask"]["b"]) == ([1], [1])
    # Four rows inside the overlap of one view's mask, sixteen of the other's.
    assert aisc([thing(2, 40, 10)], [thing(2, 40, 22)]) == 0


def test_two_predictions_compete_for_one():
    near = thing(20, 10, 12, 11)  # IoU 11/12 with A
    assert aisc([A, near], [A]) == pytest.approx(100 * 2 / 3)
    record = score([near, A], [A])
    assert record["mask"]["matched"] == [1]
    assert record["box"]["centre"] == [0]  # the better one got it


def test_iou_and_score_curves():
    wide = thing(10, 10, 20, 20)
    narrow = thing(10, 10, 20, 17, score=0.6)  # IoU 0.85
    found = INSTANCE.summarise([score([wide], [narrow])])["mask"]
    assert {iou: entry["value"] for iou, entry in found["iou"].items()} == pytest.approx(
        {f"{iou / 100:.2f}": 100 * (iou < 85) for iou in range(50, 100, 5)} | {"mean": 70}
    )
    assert found["mAISC"]["value"] == 0
    # At 0.7 one view is empty; at 0.3 and below a faint copy joins.
    faint = thing(50, 50, score=0.31)
    found = INSTANCE.summarise([score([wide, faint], [{**wide, "score": 0.6}, faint])])["mask"][
        "score"
    ]
    assert {t: entry["value"] for t, entry in found.items()} == {
        "0.05": 100,
        "0.3": 100,
        "0.5": 100,
        "0.7": 0,
    }
    found = INSTANCE.summarise([score([wide, faint], [wide])])["mask"]["score"]
    assert found["0.3"]["value"] == pytest.approx(200 / 3)
    assert found["0.5"]["value"] == 100


def test_sizes():
    small, medium = thing(10, 10, 31, 31), thing(10, 10, 33, 40)
    found = INSTANCE.summarise([score([small, medium], [medium])])["mask"]["size"]
    assert found["small"]["value"] == 0
    assert found["medium"]["value"] == 100
    assert found["large"] == {
        **{"value": None, "low": None, "high": None},
        **{"images": 0, "unit": "image"},
    }


def test_jitter():
    moved = thing(21, 12)
    found = INSTANCE.summarise([score([thing(20, 10, 40, 40)], [thing(21, 12, 40, 40)])])["box"]
    assert found["centre_jitter"]["value"] == pytest.approx(5**0.5)
    assert found["scale_jitter"]["value"] == 0
    found = INSTANCE.summarise([score([thing(20, 10, 20, 20)], [thing(20, 10, 20, 16)])])["box"]
    assert found["centre_jitter"]["value"] == 2
    assert found["scale_jitter"]["value"] == pytest.approx(np.log(20 / 16) / 2)
    found = INSTANCE.summarise([score([A], [moved]), score([A], [], 1)])["box"]
    assert found["centre_jitter"]["images"] == 1


def brute_force(plan, pair, views, kind, least_score, least_iou):
    """matched, |A|, |B| of a pair on plain masks and boxes, matched by trying all pairs."""
    cut = []
    for index, region in ((pair.a, pair.box_a), (pair.b, pair.box_b)):
        kept = []
        for number, value in enumerate(views[index]["scores"]):
            x0, y0, x1, y1 = views[index]["boxes"][number]
            x0, x1 = np.clip([x0, x1], region.left, region.right) - region.left
            y0, y1 = np.clip([y0, y1], region.top, region.bottom) - region.top
            shape = views[index]["masks"][number][region.slices]
            area = shape.sum() if kind == "mask" else (x1 - x0) * (y1 - y0)
            if value >= least_score and area >= 10:
                kept.append((views[index]["labels"][number], shape, (x0, y0, x1, y1), area))
        cut.append(kept)
    a, b = cut
    candidates = []
    for i, (label_a, mask_a, box_a, area_a) in enumerate(a):
        for j, (label_b, mask_b, box_b, area_b) in enumerate(b):
            if kind == "mask":
                shared = (mask_a & mask_b).sum()
            else:
                width = min(box_a[2], box_b[2]) - max(box_a[0], box_b[0])
                height = min(box_a[3], box_b[3]) - max(box_a[1], box_b[1])
                shared = max(width, 0) * max(height, 0)
            if label_a == label_b and shared / (area_a + area_b - shared) > least_iou:
                candidates.append((shared / (area_a + area_b - shared), i, j))
    taken = set()
    for _, i, j in sorted(candidates, key=lambda c: (-c[0], c[1], c[2])):
        if ("a", i) not in taken and ("b", j) not in taken:
            taken |= {("a", i), ("b", j)}
    return len(taken) // 2, len(a), len(b)


@pytest.mark.parametrize("seed", range(4))
def test_against_brute_force(seed):
    random = np.random.default_rng(seed)
    protocol = Protocol(stride=8, shifts=((1, 2), (-3, 0)))
    plan = protocol.plan(48, 52, seed)
    objects = np.concatenate([random.uniform(0, 40, (8, 2)), random.uniform(4, 20, (8, 2))], 1)
    kinds = random.integers(0, 2, 8)
    views = []
    for view in plan.views:
        top, left = objects[:, :2].T - np.array([[view.crop.top], [view.crop.left]])
        sides = objects[:, 2:] + random.normal(0, 0.4, (8, 2))
        boxes = np.stack([left, top, left + sides[:, 1], top + sides[:, 0]], 1)
        masks = np.zeros((8, view.crop.height, view.crop.width), bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.round().astype(int).clip(0)):
            mask[y0:y1, x0:x1] = True
        masks &= random.random(masks.shape) < 0.99
        labels = np.where(random.random(8) < 0.1, 1 - kinds, kinds)
        scores = random.uniform(0, 1, 8)
        views.append({"scores": scores, "labels": labels, "boxes": boxes, "masks": masks})
    record = InstanceConsistency(protocol, 2).score(plan, views)
    some = 0
    for kind in ("mask", "box"):
        for number, pair in enumerate(plan.pairs):
            found = {name: column[number] for name, column in record[kind].items()}
            for t in (0.05, 0.3, 0.5, 0.7):
                expected = brute_force(plan, pair, views, kind, t, 0.9)
                names = (f"matched_score_{t}", f"a_score_{t}", f"b_score_{t}")
                assert tuple(found[name] for name in names) == expected
            for iou in (0.5, 0.75, 0.9, 0.95):
                matched, a, b = brute_force(plan, pair, views, kind, 0.5, iou)
                assert (found[f"matched_iou_{iou:.2f}"], found["a"], found["b"]) == (matched, a, b)
                some += 0 < matched < min(a, b)
    assert some > 10  # the case isn't trivial


def test_worst_and_best_view():
    protocol = Protocol(stride=8, shifts=((1, 0), (2, 0), (3, 0)), controls=False)
    things = [A, C]

    def record(image_id, found):
        plan = protocol.plan(*SIZE, image_id)
        views = [seen(view, visible) for view, visible in zip(plan.views, found)]
        return InstanceConsistency(protocol, CLASSES).score(plan, views, ground_truth(things))

    # Reference, then shifts; the third shift finds nothing, the second all.
    first = record(1, [[A], [A], things, []])
    second = record(2, [things, things, things, things])
    found = INSTANCE.summarise([json.loads(json.dumps(r)) for r in (first, second)])
    for kind in ("mask", "box"):
        values = {which: entry["value"] for which, entry in found[kind]["AP"].items()}
        # Class 2 is found in one of two images: recall 1/2 at precision 1, 51 of 101 points.
        assert values["reference"] == pytest.approx(100 * (1 + 51 / 101) / 2)
        assert values["worst"] == pytest.approx(100 * 51 / 101)
        assert values["best"] == 100
        assert found[kind]["AP"]["worst"]["images"] == 2
    difference = INSTANCE.compare([first, second], [{**second, "image_id": 1}, second])
    entry = difference["mask"]["AP"]["worst"]
    assert entry["difference"] == pytest.approx(100 * 50 / 101)
    assert entry["low"] == 0


def test_images_without_ground_truth_are_counted():
    plan = ONE.plan(*SIZE, 1)
    scorer = InstanceConsistency(ONE, CLASSES)
    views = [seen(view, THINGS) for view in plan.views]
    empty = scorer.score(plan, views, ground_truth([]))
    crowd = scorer.score(ONE.plan(*SIZE, 2), views, ground_truth([A, B], crowd=(0, 1)))
    usual = scorer.score(ONE.plan(*SIZE, 3), views, ground_truth(THINGS))
    found = INSTANCE.summarise([empty, crowd, usual])
    assert found["counts"]["images_without_ground_truth"] == 2
    assert found["mask"]["AP"]["worst"]["value"] == pytest.approx(100)
    assert found["mask"]["AP"]["worst"]["images"] == 1
    assert found["mask"]["mAISC"]["images"] == 3
    found = INSTANCE.summarise([empty, crowd])
    assert "AP" not in found["mask"]


def test_zou_worst_preset():
    protocol = preset("zou-worst")
    plan = protocol.plan(100, 100, 0)
    views = [seen(view, [thing(40, 40, 20, 20)]) for view in plan.views]
    box = [40, 40, 60, 60]
    truth = {"labels": [0], "boxes": [box], "masks": None}
    record = InstanceConsistency(protocol, CLASSES).score(plan, views, truth)
    found = INSTANCE.summarise([record])["box"]
    assert found["AP"]["worst"]["value"] == pytest.approx(100)
    assert found["zou"]["value"] == 100


@pytest.mark.parametrize("kind", ["circular", "grid"])
def test_controls_of_a_detector_that_snaps_to_its_stride(kind):
    """Boxes are rounded to multiples of the stride in the view: consistent at shift S alone."""
    protocol = Protocol(kind=kind, stride=16, margin=4)
    plan = protocol.plan(112, 112, 0)
    views = []
    for view in plan.views:
        dy, dx = view.crop.top + view.roll[0], view.crop.left + view.roll[1]
        boxes = np.array([[50 - dx, 50 - dy, 75 - dx, 70 - dy]], float)
        views.append({"scores": [1.0], "labels": [1], "boxes": (boxes / 16).round() * 16})
    found = INSTANCE.summarise([InstanceConsistency(protocol, CLASSES).score(plan, views)])["box"]
    assert found["controls"]["noise_floor"]["value"] == 100
    assert found["controls"]["same_phase"]["value"] == 100
    assert found["aliasing_loss"]["value"] > 20
    assert found["mAISC"]["value"] < 100


def test_circular_protocols_ignore_ground_truth():
    protocol = Protocol(kind="circular", stride=8, shifts=((1, 0),), controls=False)
    plan = protocol.plan(64, 64, 0)
    views = [{"scores": [1.0], "labels": [1], "boxes": [[9, 9, 30, 30]]}] * 2
    truth = {"labels": [1], "boxes": [[9, 9, 30, 30]]}
    assert "AP" not in InstanceConsistency(protocol, CLASSES).score(plan, views, truth)


def test_compare():
    good = [score(THINGS, THINGS, i) for i in range(4)]
    bad = [score(THINGS, THINGS[: i % 2 + 1], i) for i in range(4)]
    entry = INSTANCE.compare(bad, good)["mask"]["mAISC"]
    assert entry["a"] == pytest.approx(100 * (2 / 4 + 4 / 5) / 2)
    assert entry["difference"] == pytest.approx(100 - entry["a"])
    assert 0 < entry["low"] < entry["difference"] < entry["high"]
    with pytest.raises(ValueError, match="in one alone"):
        INSTANCE.compare(good, good[1:])


def test_errors_name_the_image():
    plan = ONE.plan(*SIZE, "street 7")
    good = [seen(view, THINGS) for view in plan.views]
    scorer = InstanceConsistency(ONE, CLASSES)
    boxes = np.array(good[1]["boxes"], float)
    boxes[0, 2] = np.nan
    for message, second in [
        (r"prediction \(boxes\) isn't finite", {**good[1], "boxes": boxes}),
        (r"prediction \(scores\) isn't finite", {**good[1], "scores": [1, np.inf, 1]}),
        ("label 80, outside of the classes 0 to 3", {**good[1], "labels": [0, 80, 0]}),
        ("3 labels but 2 scores", {**good[1], "scores": [1, 1]}),
        ("3 labels but 2 masks", {**good[1], "masks": good[1]["masks"][:2]}),
        ("masks in one view but not in another", {**good[1], "masks": None}),
        (r"a mask of \(5, 5\)", {**good[1], "masks": np.zeros((3, 5, 5), bool)}),
    ]:
        with pytest.raises(ValueError, match=f"image 'street 7'.*{message}"):
            scorer.score(plan, [good[0], second])
    with pytest.raises(ValueError, match="image 'street 7'.*1 predictions for 2 views"):
        scorer.score(plan, good[:1])
    with pytest.raises(ValueError, match="'street 7'.*ground truth has label 9"):
        scorer.score(plan, good, {"labels": [9], "boxes": [[1, 2, 3, 4]]})


def test_average_precision_with_images_without_ground_truth_has_their_false_positives():
    """Two ways to count: left out, or with all of their detections false."""
    scorer = InstanceConsistency(ONE, CLASSES)
    sure = thing(20, 10, 40, 40)  # score 0.9 of class 1

    def record(number, truth):
        plan = ONE.plan(*SIZE, number)
        views = [seen(view, [sure]) for view in plan.views]
        return scorer.score(plan, views, ground_truth(truth))

    records = [record(1, [sure]), record(2, []), record(3, []), record(4, [sure])]
    found = INSTANCE.summarise([json.loads(json.dumps(r)) for r in records])["box"]
    assert found["AP"]["reference"]["value"] == 100
    assert found["AP"]["reference"]["images"] == 2
    # In order of equal scores: right, false, false, right: precision 1, then 2/4.
    expected = 100 * (51 * 1 + 50 * 0.5) / 101
    for view in ("reference", "worst", "best"):
        assert found["AP_all"][view]["value"] == pytest.approx(expected, abs=1e-6)
        assert found["AP_all"][view]["images"] == 4


def test_of_an_image_without_ground_truth_the_worst_view_has_the_most_certain_detection():
    protocol = Protocol(stride=8, shifts=((1, 0), (2, 0), (3, 0)), controls=False)
    plan = protocol.plan(*SIZE, 1)
    scores = (0.6, 0.7, 0.9, None)
    views = [
        seen(view, [] if score is None else [thing(20, 10, 40, 40, score=score)])
        for view, score in zip(plan.views, scores)
    ]
    record = InstanceConsistency(protocol, CLASSES).score(plan, views, ground_truth([]))
    (worst,) = record["AP"]["box"]["worst"].values()
    assert worst["scores"] == [0.9] and worst["positives"] == 0
    assert record["AP"]["box"]["best"] == {}


def test_equal_views_are_decided_by_their_order():
    """AP of 1/3 + 2/3 in another order of sums differs in its last bit: no reason to choose."""
    protocol = Protocol(stride=8, shifts=((1, 0), (2, 0), (3, 0)), controls=False)
    plan = protocol.plan(*SIZE, 1)
    false = thing(60, 60, 30, 30, score=0.2)
    views = [seen(view, [A, C]) for view in plan.views]
    views[2] = seen(plan.views[2], [A, C, false])  # as good: it comes after all that are right
    record = InstanceConsistency(protocol, CLASSES).score(plan, views, ground_truth([A, C]))
    for view in ("worst", "best"):
        assert all(0.2 not in category["scores"] for category in record["AP"]["box"][view].values())


@pytest.mark.parametrize(
    "things, remark",
    [([], "nothing is found"), ([A, B], "nearly constant: the same instances in 100.0 %")],
)
def test_a_constant_detector_is_called_so(things, remark):
    records = []
    for number in range(4):
        plan = ONE.plan(*SIZE, number)
        # At the same place of every view, whatever it shows.
        still = [seen(plan.views[0], things)] * len(plan.views)
        records.append(InstanceConsistency(ONE, CLASSES).score(plan, still))
    found = INSTANCE.summarise(records)
    for kind in ("mask", "box"):
        assert found[kind]["mAISC"].get("remark", "nothing is found").startswith(remark)


def test_a_detector_that_looks_at_its_images_is_not():
    records = []
    for number in range(4):
        plan = ONE.plan(*SIZE, number)
        views = [seen(view, [thing(10 + 6 * number, 10)]) for view in plan.views]
        records.append(InstanceConsistency(ONE, CLASSES).score(plan, views))
    assert "remark" not in INSTANCE.summarise(records)["box"]["mAISC"]
