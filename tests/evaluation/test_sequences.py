"""Sequences and positions by the names of images."""

import pytest

from aa_plugins.evaluation import Protocol, RecordWriter, read_records
from aa_plugins.evaluation.resampling import Blocks, Images, units_of
from aa_plugins.evaluation.sequences import fitting, placed


def records(*ids):
    return [{"image_id": image_id} for image_id in ids]


@pytest.mark.parametrize(
    ("rule", "image_id", "sequence", "position"),
    [
        ("camvid", "val/0016E5_07959.png", "0016E5", 7959),
        ("camvid", "train/Seq05VD_f00030.jpg", "Seq05VD", 30),
        ("cityscapes", "val/frankfurt_000001_005410_leftImg8bit.png", "frankfurt_000001", 5410),
        ("video", "day 1/walk/frame_0012.jpg", "day 1/walk", 12),
        ("video", "walk/cam2_frame0007_left.png", "walk", 7),
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
    [("(", "camvid, cityscapes, video"), ("(a)", "has no groups"), ("cityscapes", "doesn't match")],
)
def test_a_rule_that_does_not_fit_says_so(rule, said):
    with pytest.raises(ValueError, match=said):
        placed(records("0016E5_07959"), rule)


def test_records_carry_their_place(tmp_path):
    with RecordWriter(tmp_path, Protocol(), {}, sequences="camvid") as writer:
        writer.append({"image_id": "val/0016E5_07961.png"})
        writer.append({"image_id": "val/0016E5_07959.png"})
        writer.leave_out("val/broken.png", "cut off")
        with pytest.raises(ValueError, match="doesn't match"):
            writer.append({"image_id": "val/cat.png"})
    header, found = read_records(tmp_path)
    assert header["sequences"] == "camvid"
    assert [(record["sequence"], record["position"]) for record in found] == [
        ("0016E5", 7959),
        ("0016E5", 7961),
    ]
    assert units_of(found).frames == ((0, 1),)
    with pytest.raises(ValueError, match="sequences='camvid', this run has None"):
        RecordWriter(tmp_path, Protocol(), {}, resume=True)


def test_other_images_in_the_layout_of_a_data_set_are_independent(caplog):
    assert fitting("camvid", ["val/0016E5_07959.png", "val/0016E5_07961.png"]) == "camvid"
    assert fitting(None, ["a", "b"]) is None and not caplog.text
    assert fitting("camvid", ["val/cat.png", 7]) is None
    assert "'val/cat.png' aren't named by the rule 'camvid'" in caplog.text
    with pytest.raises(ValueError, match="'val/cat.png' doesn't match"):
        fitting("camvid", ["val/0016E5_07959.png", "val/cat.png"])
