import json

import numpy as np
import pytest
import torch

from aa_plugins.evaluation import Protocol, SemanticConsistency, extract
from aa_plugins.evaluation.semantic import SEMANTIC

CLASSES = 4
GRID = Protocol(stride=8, margin=4)

NOTHING = {"value": None, "low": None, "high": None, "images": 0, "unit": "image"}


def image(seed, height=48, width=56):
    """A smooth random field with a few classes in it."""
    noise = torch.randn(1, 1, 10, 12, generator=torch.Generator().manual_seed(seed))
    field = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")
    return field[0, 0]


def classify(pixels):
    return (pixels * 1.5 + 1.5).clamp(0, CLASSES - 1).long()


def decimating(view, stride=8):
    """Reads every 8th pixel of its input alone: equivariant to shifts by 8, to no others."""
    kept = view[::stride, ::stride].repeat_interleave(stride, 0).repeat_interleave(stride, 1)
    return classify(kept)


def run(predict, protocol=GRID, seeds=range(3), truth=True, **options):
    scorer = SemanticConsistency(protocol, CLASSES, **options)
    records = []
    for seed in seeds:
        pixels = image(seed)
        plan = protocol.plan(*pixels.shape, seed)
        predictions = (predict(extract(pixels, view)) for view in plan.views)
        labels = classify(pixels) if truth else None
        records.append(scorer.score(plan, predictions, labels))
    return json.loads(json.dumps(records, allow_nan=False))


def pixelwise(view):
    return classify(view)


@pytest.mark.parametrize("kind", ["grid", "circular", "pairs"])
def test_equivariant_predictor_is_perfectly_consistent(kind):
    pairs = 4 if kind == "pairs" else 0
    protocol = Protocol(kind=kind, stride=8, pairs=pairs, max_shift=8, margin=4)
    found = SEMANTIC.summarise(run(pixelwise, protocol))
    for name in ("mIoU", "mASSC", "valid", "class_mean", "fidelity", "worst"):
        assert (found[name]["value"], found[name]["low"]) == (100, 100)
    for control in found["controls"].values():
        assert control["value"] == 100
    assert found["aliasing_loss"]["value"] == 0
    assert all(entry["value"] == 100 for entry in found["shift"].values())


def test_subpixel_shifts_of_an_equivariant_predictor_only_move_contours():
    found = SEMANTIC.summarise(run(pixelwise, Protocol(kind="subpixel", stride=8)))
    assert 80 < found["mASSC"]["value"] < 100
    assert found["shift"]["0.25,0"]["value"] > found["shift"]["0.5,0.5"]["value"]
    assert found["controls"]["same_phase"]["value"] == 100


def test_constant_predictor_is_consistent_and_useless():
    found = SEMANTIC.summarise(run(lambda view: torch.zeros(view.shape, dtype=torch.long)))
    assert found["mASSC"]["value"] == 100
    assert found["mIoU"]["value"] < 20
    assert found["fidelity"]["value"] < 50
    assert found["mASSC"]["remark"] == "nearly constant: 100.0 % of an image are one class"
    # Also where it is another class in another image; not where images are looked at.
    records = [run(lambda v, c=c: torch.full(v.shape, c), seeds=[c])[0] for c in range(3)]
    assert "remark" in SEMANTIC.summarise(records)["mASSC"]
    assert "remark" not in SEMANTIC.summarise(run(pixelwise))["mASSC"]


@pytest.mark.parametrize("kind", ["grid", "circular"])
def test_predictor_periodic_with_the_stride_loses_to_aliasing_alone(kind):
    found = SEMANTIC.summarise(run(decimating, Protocol(kind=kind, stride=8, margin=4)))
    assert found["controls"]["same_phase"]["value"] == 100
    assert found["controls"]["noise_floor"]["value"] == 100
    assert found["controls"]["near"]["value"] < 100
    assert found["aliasing_loss"]["low"] > 0
    assert found["mASSC"]["value"] < 100
    assert found["shift"]["8,0"]["value"] == 100  # listed, but a multiple of the stride
    others = [found["shift"][name]["value"] for name in ("1,0", "0,1", "1,1", "2,0", "0,2", "2,2")]
    others += [found["shift"][name]["value"] for name in ("4,0", "0,4", "4,4")]
    assert found["mASSC"]["value"] == pytest.approx(np.mean(others))
    loss = found["controls"]["same_phase"]["value"] - np.mean(
        [found["controls"][role]["value"] for role in ("near", "half")]
    )
    assert found["aliasing_loss"]["value"] == pytest.approx(loss)


def test_hand_computed():
    protocol = Protocol(stride=2, shifts=((1, 0),), controls=False)
    plan = protocol.plan(4, 4)  # crop: rows 1 and 2; overlap: row 2
    assert plan.crop == (1, 0, 3, 4)
    first = np.zeros((plan.crop.height, plan.crop.width), np.int64)
    second = first.copy()
    first[1] = [1, 0, 2, 2]
    second[0] = [1, 1, 2, 0]
    truth = np.full((4, 4), 255, np.uint8)
    truth[2] = [1, 0, 0, 255]
    scorer = SemanticConsistency(protocol, 3, background=0)
    record = scorer.score(plan, [first, second], truth)
    pairs = record["pairs"]
    assert (pairs["equal"], pairs["pixels"]) == ([2], [4])
    assert (pairs["equal_valid"], pairs["pixels_valid"]) == ([2], [3])
    assert (pairs["equal_foreground"], pairs["pixels_foreground"]) == ([2], [4])
    assert pairs["correct"] == [1]  # the third pixel is equal, but wrong
    assert record["classes"] == {"intersection": [0, 1, 1], "union": [2, 2, 2]}
    # In the reference crop, row 2 alone has ground truth: 1 0 0 against 1 0 2.
    assert record["iou"] == {"intersection": [1, 1, 0], "union": [2, 1, 1]}
    found = SEMANTIC.summarise([record])
    assert found["mASSC"]["value"] == 50
    assert found["valid"]["value"] == pytest.approx(200 / 3)
    assert found["fidelity"]["value"] == pytest.approx(100 / 3)
    assert found["class_mean"]["value"] == pytest.approx(100 / 3)
    assert found["mIoU"]["value"] == 50


def brute_force(plan, views, truth, pair):
    """Counts of a pair by walking over its pixels in image coordinates."""
    counts = dict.fromkeys(
        ["pixels", "equal", "pixels_valid", "equal_valid", "correct", "pixels_margin_4"]
        + ["equal_margin_4", "pixels_foreground", "equal_foreground"]
        + [f"{name}_band_{band}" for name in ("pixels", "equal") for band in (1, 3, 5, 15)],
        0,
    )
    height, width = truth.shape
    boundary = [
        (y, x)
        for y in range(height)
        for x in range(width)
        if any(
            0 <= y + dy < height and 0 <= x + dx < width and truth[y, x] != truth[y + dy, x + dx]
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
        )
    ]
    top_a, left_a, *_ = plan.views[pair.a].crop
    top_b, left_b, *_ = plan.views[pair.b].crop
    region = pair.region
    for y in range(region.top, region.bottom):
        for x in range(region.left, region.right):
            a, b = views[pair.a][y - top_a, x - left_a], views[pair.b][y - top_b, x - left_b]
            same = int(a == b)
            kinds = [""]
            if region.top + 4 <= y < region.bottom - 4 and region.left + 4 <= x < region.right - 4:
                kinds.append("_margin_4")
            if a != 0 or b != 0:
                kinds.append("_foreground")
            if truth[y, x] != 255:
                kinds.append("_valid")
                counts["correct"] += int(same and a == truth[y, x])
                distance = 1 + min(((y - v) ** 2 + (x - u) ** 2) ** 0.5 for v, u in boundary)
                kinds += [f"_band_{band}" for band in (1, 3, 5, 15) if distance <= band]
            for kind in kinds:
                counts["pixels" + kind] += 1
                counts["equal" + kind] += same
    return counts


@pytest.mark.parametrize("seed", range(3))
def test_against_brute_force(seed):
    random = np.random.default_rng(seed)
    protocol = Protocol(stride=4, shifts=((1, 0), (-2, 3)))
    plan = protocol.plan(25, 30, seed)
    size = (plan.crop.height, plan.crop.width)
    views = [random.integers(0, 3, size) for _ in plan.views]
    truth = np.repeat(np.repeat(random.integers(0, 3, (3, 3)), 9, 0), 10, 1)[:25].astype(np.uint8)
    truth[random.random(truth.shape) < 0.02] = 255
    record = SemanticConsistency(protocol, 3, background=0).score(plan, views, truth)
    for number, pair in enumerate(plan.pairs):
        for name, expected in brute_force(plan, views, truth, pair).items():
            assert record["pairs"][name][number] == expected, (name, pair)


def test_probabilities():
    protocol = Protocol(stride=4, shifts=((1, 2),))
    plan = protocol.plan(22, 24, "x")
    size = (CLASSES, plan.crop.height, plan.crop.width)
    generator = torch.Generator().manual_seed(0)
    views = [(3 * torch.randn(size, generator=generator)).softmax(0) for _ in plan.views]
    scorer = SemanticConsistency(protocol, CLASSES)
    record = scorer.score(plan, views)
    labels = scorer.score(plan, [view.argmax(0) for view in views])
    assert record["pairs"]["equal"] == labels["pairs"]["equal"]
    assert "divergence" not in labels["pairs"]
    for pair, found in zip(plan.pairs, record["pairs"]["divergence"]):
        p, q = (
            views[i][(..., *box.slices)].double().numpy()
            for i, box in ((pair.a, pair.box_a), (pair.b, pair.box_b))
        )
        middle = (p + q) / 2
        expected = (p * np.log(p / middle) + q * np.log(q / middle)).sum(0).mean() / 2
        assert found == pytest.approx(expected, rel=1e-4)
    assert SEMANTIC.summarise([record])["divergence"]["value"] == pytest.approx(
        record["pairs"]["divergence"][0]
    )
    # One-hot opposites are ln 2 apart; equal ones not at all.
    one, other = torch.zeros(size), torch.zeros(size)
    one[0], other[1] = 1, 1
    opposite = [other if i == plan.pairs[0].b else one for i in range(len(views))]
    divergences = scorer.score(plan, opposite)["pairs"]["divergence"]
    assert divergences[0] == pytest.approx(np.log(2))
    assert divergences[1] == 0


def test_circular_probabilities_are_unrolled():
    protocol = Protocol(kind="circular", stride=8, controls=False)

    def predict(view):
        return torch.stack([view.sigmoid(), 1 - view.sigmoid(), 0 * view, 0 * view])

    found = SEMANTIC.summarise(run(predict, protocol))
    assert found["mASSC"]["value"] == 100
    assert found["divergence"]["value"] < 1e-6


def test_miou_pools_the_images():
    records = run(pixelwise, seeds=range(2))
    records[0]["iou"] = {"intersection": [100, 0, 0, 0], "union": [100, 0, 0, 0]}
    records[1]["iou"] = {"intersection": [300, 0, 0, 0], "union": [400, 100, 0, 0]}
    assert SEMANTIC.summarise(records)["mIoU"]["value"] == pytest.approx(100 * (400 / 500 + 0) / 2)


def test_two_models_compared():
    good, bad = run(pixelwise), run(decimating)
    found = SEMANTIC.compare(bad, good[::-1])
    entry = found["mASSC"]
    assert entry["a"] == SEMANTIC.summarise(bad)["mASSC"]["value"]
    assert entry["b"] == 100
    assert entry["difference"] == pytest.approx(entry["b"] - entry["a"])
    assert 0 < entry["low"] <= entry["difference"] <= entry["high"]
    assert entry["images"] == 3
    assert found["aliasing_loss"]["high"] < 0
    with pytest.raises(ValueError, match="in one alone"):
        SEMANTIC.compare(good, bad[:2])
    with pytest.raises(ValueError, match="different protocols"):
        SEMANTIC.compare(good, run(pixelwise, Protocol(stride=8, seed=1)))


def test_summary_does_not_depend_on_the_order():
    records = run(decimating, seeds=range(5))
    assert SEMANTIC.summarise(records) == SEMANTIC.summarise(records[::-1])


def test_random_shifts_are_summarised_by_distance():
    protocol = Protocol(kind="circular", stride=8, pairs=6, max_shift=5)
    found = SEMANTIC.summarise(run(decimating, protocol))
    assert set(found["shift"]) <= {"1", "2", "3", "4", "5"}
    assert list(found["shift"]) == sorted(found["shift"])


def test_few_views_are_held(monkeypatch):
    pixels = image(0)
    plan = GRID.plan(*pixels.shape, 0)
    alive, most = set(), 0

    class Tracked(torch.Tensor):
        pass

    def predictions():
        nonlocal most
        import weakref

        for index, view in enumerate(plan.views):
            values = torch.rand(CLASSES, *extract(pixels, view).shape).softmax(0)
            alive.add(index)
            weakref.finalize(values, alive.discard, index)
            most = max(most, len(alive))
            yield values
            del values

    SemanticConsistency(GRID, CLASSES).score(plan, predictions())
    assert len(plan.views) == 20
    assert most <= 9


def test_errors_name_the_image():
    plan = GRID.plan(48, 48, "street 7")
    size = (plan.crop.height, plan.crop.width)
    labels = [np.zeros(size, int) for _ in plan.views]
    scorer = SemanticConsistency(GRID, CLASSES)

    def check(message, predictions=labels, truth=None):
        with pytest.raises(ValueError, match=f"image 'street 7'.*{message}"):
            scorer.score(plan, predictions, truth)

    scores = torch.full((CLASSES, *size), 1 / CLASSES)
    broken = scores.clone()
    broken[2, 5, 6] = float("nan")
    check("isn't finite", [scores, broken, *labels[2:]])
    broken[2, 5, 6] = float("inf")
    check("isn't finite", [broken, *labels[1:]])
    check("apply a softmax", [scores * 3, *labels[1:]])
    check("give probabilities of shape", [scores[:2], *labels[1:]])
    check("give integer labels of shape", [labels[0][1:], *labels[1:]])
    wrong = labels[0].copy()
    wrong[3, 3] = CLASSES
    check("prediction has label 4, outside of the classes 0 to 3", [wrong, *labels[1:]])
    check(f"{len(labels) - 1} predictions for {len(labels)} views", labels[1:])
    check(f"more than {len(labels)} predictions", [*labels, labels[0]])
    truth = np.full((48, 48), 255)
    truth[0, 0] = 11
    check("ground truth has label 11.*to 255", truth=truth)
    check("ground truth of int64 has shape", truth=truth[1:])
    with pytest.raises(ValueError, match="ignore_index is 3, one of the 4 classes"):
        SemanticConsistency(GRID, CLASSES, ignore_index=3)
    with pytest.raises(ValueError, match="background is 9"):
        SemanticConsistency(GRID, CLASSES, background=9)


@pytest.mark.filterwarnings("error")
def test_arrays_may_be_read_only():
    plan = GRID.plan(48, 48, 0)
    labels = np.zeros((plan.crop.height, plan.crop.width), np.uint8)
    truth = np.zeros((48, 48), np.uint8)
    for array in (labels, truth):
        array.flags.writeable = False
    SemanticConsistency(GRID, CLASSES).score(plan, [labels] * len(plan.views), truth)


def test_all_pixels_ignored():
    plan = GRID.plan(48, 48, 0)
    labels = [np.zeros((plan.crop.height, plan.crop.width), int) for _ in plan.views]
    scorer = SemanticConsistency(GRID, CLASSES, background=0)
    record = scorer.score(plan, labels, np.full((48, 48), 255))
    other = scorer.score(GRID.plan(48, 48, 1), labels, np.zeros((48, 48), int))
    found = SEMANTIC.summarise([record, other])
    assert found["mASSC"]["images"] == 2
    assert found["fidelity"]["images"] == found["valid"]["images"] == 1
    assert found["foreground"] == NOTHING
    assert found["boundary"]["1"]["images"] == 0


def test_images_too_small_for_the_margin_have_no_loss_and_say_so():
    found = SEMANTIC.summarise(run(decimating, Protocol(stride=8)))  # 48 x 56 pixels, margin 32
    assert found["aliasing_loss"]["value"] is None and found["aliasing_loss"]["images"] == 0
    assert found["aliasing_loss"]["remark"] == "images too small for the margin"
    assert found["controls"]["same_phase"]["value"] == 100
    assert "remark" not in SEMANTIC.summarise(run(decimating))["aliasing_loss"]
