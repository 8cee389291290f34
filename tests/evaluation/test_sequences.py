"""Sequences and positions by the names of images."""

import pytest

from aa_plugins.evaluation.resampling import Blocks, Images, units_of
from aa_plugins.evaluation.sequences import placed


def records(*ids):
    return [{"image_id": image_id} for image_id in ids]


@pytest.mark.parametrize(
    ("rule", "image_id", "sequence", "position"),
    [
        ("camvid", "val/0016E5_07959.png", "0016E5", 7959),
        ("camvid", "train/Seq05VD_f00030.jpg", "Seq05VD", 30),
        ("cityscapes", "val/frankfurt_000001_005410_leftImg8bit.png", "frankfurt_000001", 5410),
        (r"(?P<sequence>\w+)/(?P<position>\d+)", "clip/0012.jpg", "clip", 12),
    ],
)
def test_names_say_where_an_image_belongs(rule, image_id, sequence, position):
    (found,) = placed(records(image_id), rule)
    assert (found["sequence"], found["position"]) == (sequence, position)


def test_without_a_rule_images_are_unordered():
    assert isinstance(units_of(placed(records("a_1", "a_2"), None)), Images)
    units = units_of(placed(records("a_2", "b_7", "a_1"), "camvid"), block=2)
    assert isinstance(units, Blocks) and units.frames == ((2, 0), (1,))


@pytest.mark.parametrize(
    ("rule", "said"),
    [("(", "camvid, cityscapes"), ("(a)", "has no groups"), ("cityscapes", "doesn't match")],
)
def test_a_rule_that_does_not_fit_says_so(rule, said):
    with pytest.raises(ValueError, match=said):
        placed(records("0016E5_07959"), rule)
