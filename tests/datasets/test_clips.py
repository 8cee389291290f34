import numpy as np
import pytest
from PIL import Image

from aa_plugins.datasets.clips import Clip, Stills
from aa_plugins.report.moving import write_video


def frame(level: int) -> np.ndarray:
    return np.full((48, 64, 3), level, np.uint8)


def levels(clip: Clip) -> list[int]:
    return [round(float(image.mean()) / 20) for image in clip]


@pytest.fixture
def video(tmp_path):
    write_video(tmp_path / "a.mp4", [frame(20 * i) for i in range(10)], 10)
    return tmp_path / "a.mp4"


def test_frames_of_a_file_in_order(video):
    clip = Clip(video)
    assert len(clip) == 10 and clip.frames_per_second == 10 and clip.name == "a"
    assert levels(clip) == list(range(10)) == levels(clip)
    assert next(iter(clip)).shape == (48, 64, 3)


def test_stills_are_spread_over_a_video(video):
    stills = Stills(video, 4)
    assert stills.numbers == [0, 3, 6, 9] and len(stills) == 4
    order = (2, 0, 3)
    assert [round(float(stills.read(i)[0].mean()) / 20) for i in order] == [6, 0, 9]
    assert len(Stills(video)) == 10


def test_a_frame_that_a_video_lacks_is_named(video):
    stills = Stills(video)
    stills.numbers[3] = 500
    with pytest.raises(ValueError, match="a.mp4: frame 500 can't be read"):
        stills.read(3)


def test_some_of_the_frames(video):
    assert levels(Clip(video, frames=3)) == [0, 1, 2]
    clip = Clip(video, every=4)
    assert levels(clip) == [0, 4, 8] and len(clip) == 3 and clip.frames_per_second == 2.5


def test_a_folder_of_images(tmp_path):
    for index in (2, 0, 1):
        Image.fromarray(frame(20 * index)).save(tmp_path / f"{index:03d}.png")
    assert levels(Clip(tmp_path)) == [0, 1, 2]


def test_what_is_no_video(tmp_path):
    with pytest.raises(FileNotFoundError, match="no video"):
        Clip(tmp_path / "none.mp4")
    with pytest.raises(FileNotFoundError, match="no image in"):
        Clip(tmp_path)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="isn't a video"):
        Clip(tmp_path / "text.mp4")
