from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as rle_codec

from aa_plugins.evaluation.matching import (
    Instances,
    Overlaps,
    Patch,
    box_overlaps,
    encode,
    mask_overlaps,
    match,
    patch,
)
from aa_plugins.evaluation.views import Box

masks = arrays.arrays(
    bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans()
)


def framed(piece, shape):
    frame = np.zeros(shape, bool)
    frame[piece.box.slices] = piece.bits
    return frame


@settings(max_examples=200, deadline=None)
@given(masks)
def test_patch_of_every_form_is_the_mask(mask):
    rle = rle_codec.encode(np.asfortranarray(mask, np.uint8))
    runs = np.diff(np.flatnonzero(np.diff(mask.T.ravel().astype(int), prepend=0)), prepend=0)
    runs = [*runs.tolist(), mask.size - int(runs.sum())]
    text = {**rle, "counts": rle["counts"].decode()}
    for form in (mask, rle, text, {"size": list(mask.shape), "counts": runs}):
        found = patch(form)
        assert np.array_equal(framed(found, mask.shape), mask)
        if mask.any():  # nothing around it
            assert found.bits[0].any() and found.bits[-1].any()
            assert found.bits[:, 0].any() and found.bits[:, -1].any()
        assert np.array_equal(rle_codec.decode(encode(form)).astype(bool), mask)
    assert found.encoded(*mask.shape) == rle


def test_run_lengths_of_large_masks():
    random = np.random.default_rng(0)
    for _ in range(20):
        mask = np.zeros((900, 700), bool)
        top, left = random.integers(0, 600, 2)
        mask[top : top + random.integers(1, 300), left : left + random.integers(1, 100)] = True
        mask &= random.random(mask.shape) < random.choice([0.02, 0.5, 1])
        found = patch(rle_codec.encode(np.asfortranarray(mask, np.uint8)))
        assert np.array_equal(framed(found, mask.shape), mask)


boxes = st.tuples(*[st.integers(-4, 14)] * 4).map(
    lambda b: Box(min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@settings(max_examples=200, deadline=None)
@given(masks, boxes)
def test_cut(mask, box):
    found = patch(mask).cut(box)
    padded = np.pad(mask, 20)
    expected = padded[20 + box.top : 20 + box.bottom, 20 + box.left : 20 + box.right]
    assert np.array_equal(framed(found, expected.shape), expected)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6))
def test_overlaps_against_pycocotools(seed):
    random = np.random.default_rng(seed)
    sets = []
    for _ in range(2):
        centres, sizes = random.uniform(0, 20, (6, 2)), random.uniform(3, 15, (6, 2))
        corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1).clip(0, 20)
        frames = np.zeros((6, 20, 20), bool)
        for frame, (x0, y0, x1, y1) in zip(frames, corners.round().astype(int)):
            frame[y0:y1, x0:x1] = True
        sets.append((corners, frames & (random.random(frames.shape) < 0.95)))
    (boxes_a, masks_a), (boxes_b, masks_b) = sets

    def dense(overlaps):
        found = np.zeros((6, 6))
        found[overlaps.i, overlaps.j] = overlaps.iou
        return found

    def wide(boxes):
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)

    expected = rle_codec.iou(wide(boxes_a), wide(boxes_b), [0] * 6)
    expected[expected <= 0.5] = 0
    assert dense(box_overlaps(boxes_a, boxes_b)) == pytest.approx(expected)
    expected = rle_codec.iou([encode(m) for m in masks_a], [encode(m) for m in masks_b], [0] * 6)
    expected[expected <= 0.5] = 0
    arguments = []
    for frames in (masks_a, masks_b):
        arguments += [[patch(frame) for frame in frames], frames.sum((1, 2)).astype(float)]
    assert dense(mask_overlaps(*arguments)) == pytest.approx(expected)


def greedy(ious, allowed, threshold):
    """Takes the best pair that is left, again and again."""
    ious = np.where(allowed, ious, 0)
    chosen = set()
    while ious.size and ious.max() > threshold:
        i, j = (int(k) for k in np.unravel_index(ious.argmax(), ious.shape))
        chosen.add((i, j))
        ious[i], ious[:, j] = 0, 0
    return chosen


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6))
def test_match_against_greedy(seed):
    random = np.random.default_rng(seed)
    shape = random.integers(1, 6, 2)
    ious = random.choice([0.0, 0.6, 0.7, 0.8, 0.9, 0.95], shape)
    allowed = random.random(shape) < 0.7
    i, j = np.nonzero(ious > 0.5)
    overlaps = Overlaps(i, j, ious[i, j])
    chosen = match(overlaps, allowed[i, j])
    for threshold in (0.5, 0.75, 0.9):
        found = {(int(i[k]), int(j[k])) for k in chosen if overlaps.iou[k] > threshold}
        assert found == greedy(ious, allowed, threshold)


def test_two_competing_for_one():
    overlaps = Overlaps(np.array([0, 1]), np.array([0, 0]), np.array([0.92, 0.97]))
    assert match(overlaps, np.array([True, True])).tolist() == [1]
    assert match(overlaps, np.array([True, False])).tolist() == [0]
    # The order in which instances come doesn't matter.
    for order in permutations(range(2)):
        swapped = Overlaps(*(column[list(order)] for column in overlaps))
        (k,) = match(swapped, np.array([True, True]))
        assert swapped.iou[k] == 0.97


def test_small_remainders_are_dropped():
    patches = [Patch(0, 0, np.ones((4, 9), bool)), Patch(0, 2, np.ones((4, 5), bool))]
    boxes = np.array([[0, 0, 9, 4], [2, 0, 7, 4]], float)
    instances = Instances(np.ones(2), np.zeros(2, int), boxes, patches)
    overlap = Box(2, 0, 10, 6)  # the lower two rows, the first six columns
    cut, areas = instances.cut_masks(overlap)
    assert areas.tolist() == [12]
    assert cut.boxes.tolist() == [[0, 0, 6, 2]]
    assert cut.patches[0].bits.shape == (2, 6)
    assert instances.cut_boxes(overlap)[1].tolist() == [12]
    assert instances.cut_boxes(Box(2, 0, 10, 7))[1].tolist() == [14, 10]
