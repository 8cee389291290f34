"""Instances of several views merged, cut and compared, against cases computed by hand."""

import pytest
import torch

from aa_plugins.evaluation.views import Box
from aa_plugins.training import Instances, moved_views
from aa_plugins.training.instances import merged, quality

SIZE = (20, 24)


def instances(*rows, masks=None):
    """Rows of (left, top, right, bottom, score, label)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Instances(table[:, :4], table[:, 4], table[:, 5].long(), masks)


def on_view(row, offset):
    """A row in window coordinates, in those of a view at (dy, dx), cut by its border."""
    (left, top, right, bottom, *rest), (dy, dx) = row, offset
    height, width = SIZE
    return [
        max(left - dx, 0),
        max(top - dy, 0),
        min(right - dx, width),
        min(bottom - dy, height),
    ] + rest


@pytest.fixture
def moved():
    return moved_views(SIZE, [(0, 0), (3, 1), (1, 3)])


WINDOW = (23, 27)


def test_one_object_in_all_views_is_found_where_it_is(moved):
    row = (6.0, 5.0, 14.0, 15.0, 0.9, 2)
    found = [instances(on_view(row, (v.crop.top, v.crop.left))) for v in moved.views]
    (one,) = merged(found, moved, WINDOW).boxes.tolist()
    assert one == list(row[:4])


def test_what_views_say_is_averaged(moved):
    rows = [(6, 5, 14, 15, 0.9, 0), (7, 5, 14, 15, 0.6, 0), (8, 5, 14, 15, 0.6, 0)]
    found = [instances(on_view(r, (v.crop.top, v.crop.left))) for r, v in zip(rows, moved.views)]
    result = merged(found, moved, WINDOW)
    torch.testing.assert_close(result.boxes, torch.tensor([[7.0, 5, 14, 15]]))
    torch.testing.assert_close(result.scores, torch.tensor([0.7]))


def test_an_object_that_a_view_misses_counts_as_zero_there(moved):
    row = (6.0, 5.0, 14.0, 15.0, 0.9, 0)
    for seen, kept in ((1, 0), (2, 1)):
        found = [
            instances(*([on_view(row, (v.crop.top, v.crop.left))] if number < seen else ()))
            for number, v in enumerate(moved.views)
        ]
        assert len(merged(found, moved, WINDOW)) == kept


def test_classes_are_not_mixed(moved):
    row = (6.0, 5.0, 14.0, 15.0, 0.9)
    found = [
        instances(on_view((*row, label), (v.crop.top, v.crop.left)))
        for label, v in zip((0, 1, 0), moved.views)
    ]
    result = merged(found, moved, WINDOW)
    assert result.labels.tolist() == [0]
    torch.testing.assert_close(result.scores, torch.tensor([0.6]))


def test_a_views_border_is_no_side_of_an_object(moved):
    """Cut off at the left by two of three views, and by the window itself at the top."""
    row = (0.0, 0.0, 12.0, 15.0, 0.9, 0)
    found = [instances(on_view(row, (v.crop.top, v.crop.left))) for v in moved.views]
    (box,) = merged(found, moved, WINDOW).boxes.tolist()
    assert box == [0, 0, 12, 15]


def test_masks_follow_most_views_that_see_a_pixel(moved):
    truth = torch.zeros(WINDOW, dtype=torch.bool)
    truth[5:15, 6:14] = True
    found = []
    for number, view in enumerate(moved.views):
        own = truth.clone()
        own[5, 6:14] = number != 0  # one view misses the first row
        own[15, 6:14] = number == 0  # and has one too many
        masks = own[view.crop.slices][None]
        row = on_view((6, 5, 14, 15, 0.9, 0), (view.crop.top, view.crop.left))
        found.append(instances(row, masks=masks))
    assert torch.equal(merged(found, moved, WINDOW).masks[0], truth)


def test_cutting_undoes_placing(moved):
    masks = torch.rand(2, *SIZE) > 0.5
    one = instances((2, 3, 10, 9, 0.9, 0), (5, 5, 20, 18, 0.2, 1), masks=masks)
    crop = moved.views[1].crop
    again = one.placed(crop, WINDOW).cut(crop)
    for name in ("boxes", "scores", "labels", "masks"):
        assert torch.equal(getattr(again, name), getattr(one, name))


def test_what_a_cut_leaves_too_small_is_dropped():
    one = instances((0, 0, 10, 10, 0.9, 0), (12, 0, 20, 10, 0.9, 1))
    assert one.cut(Box(0, 9, 20, 24)).labels.tolist() == [1]


def test_quality_is_panoptic_quality():
    one = instances((0, 0, 10, 10, 0.9, 0), (20, 0, 30, 10, 0.9, 1))
    assert quality(one, one) == 1
    # Matched with an intersection over union of 0.8; the other one of `one` has no partner.
    other = instances((0, 0, 10, 8, 0.9, 0))
    assert quality(one, other) == pytest.approx(0.8 / 1.5)
    wrong = instances((0, 0, 10, 10, 0.9, 1))
    assert quality(one, wrong) == 0
    none = instances()
    assert quality(none, none) == 1 and quality(one, none) == 0


def test_no_instances_at_all(moved):
    none = [instances(masks=torch.zeros(0, *SIZE, dtype=torch.bool)) for _ in moved.views]
    result = merged(none, moved, WINDOW)
    assert len(result) == 0 and result.masks.shape == (0, *WINDOW)
