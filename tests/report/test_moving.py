import io

import cv2
import numpy as np
import pytest
from PIL import Image

from aa_plugins.report.moving import (
    GAP,
    boxed_frame,
    flip_movie,
    moving_picture,
    painted_frame,
    side_by_side,
    write_video,
)

PINK = (255, 0, 89)


def test_flips_are_pink_and_the_rest_takes_its_class_colour():
    image = np.full((4, 6, 3), 100, np.uint8)
    labels = np.zeros((4, 6), int)
    labels[0, 0] = 7  # outside of the palette
    flips = np.zeros((4, 6), bool)
    flips[1, 2] = True
    frame = painted_frame(image, labels, flips, np.array([[1.0, 0, 0]]))
    assert tuple(frame[1, 2]) == PINK
    assert tuple(frame[0, 0]) == (100, 100, 100)
    assert tuple(frame[3, 3]) == (185, 45, 45)


def test_a_movie_has_every_frame_and_a_still_one():
    images = [np.full((60, 90, 3), 40 * i, np.uint8) for i in range(3)]
    labels = {name: [np.zeros((60, 90), int)] * 3 for name in ("plain", "blur")}
    flips = {name: [np.zeros((60, 90), bool)] * 3 for name in labels}
    picture = flip_movie(images, labels, flips, classes=2)
    moving, still = (Image.open(io.BytesIO(data)) for data in (picture.data, picture.still))
    assert moving.n_frames == 3 and getattr(still, "n_frames", 1) == 1
    assert moving.size == (2 * 360 + GAP, 240)
    assert "plain, blur" in picture.caption and "plain, blur" in picture.alt
    assert picture.url.startswith("data:image/webp;base64,")


def test_one_frame_does_not_move():
    with pytest.raises(ValueError, match="1 frames don't move"):
        moving_picture([np.zeros((4, 4, 3), np.uint8)], "", "")


def test_boxes_that_changed_stand_out():
    frame = boxed_frame(np.zeros((80, 100, 3), np.uint8), [(10, 10, 30, 30)] * 1, [True])
    assert tuple(frame[10, 20]) == PINK
    frame = boxed_frame(np.zeros((80, 100, 3), np.uint8), [(10, 10, 30, 30)], [False])
    assert tuple(frame[10, 20]) == (60, 200, 120)


def test_a_video_reads_back(tmp_path):
    frames = [side_by_side([np.full((32, 360, 3), v, np.uint8)]) for v in (0, 120, 240)]
    write_video(tmp_path / "a.mp4", frames, 10)
    video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    means = []
    while (read := video.read())[0]:
        means.append(float(read[1].mean()))
    assert means == pytest.approx([0, 120, 240], abs=4)


def test_a_video_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(OSError, match="can't be written as MP4"):
        write_video(tmp_path / "no" / "a.mp4", [np.zeros((16, 16, 3), np.uint8)], 10)
