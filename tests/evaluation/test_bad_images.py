import cv2
import numpy as np
import pytest
from PIL import Image

from aa_plugins.evaluation import (
    BadImage,
    LeftOut,
    Protocol,
    RecordWriter,
    attempt,
    check_labels,
    read_records,
)

PROTOCOL = Protocol(stride=8, shifts=((1, 0),), controls=False)


def decode(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def folder(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "good.png")
    Image.fromarray(pixels[:8]).save(tmp_path / "small.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    return tmp_path


BAD = ["cut.png", "empty.png", "missing.png", "small.png", "text.png"]


def run(folder, names, out, **options):
    """As a host measures."""
    with RecordWriter(out, PROTOCOL, {}, **options) as writer:
        left_out = LeftOut(writer)
        for name in names:
            if name in writer.done:
                continue
            file = folder / name
            image = left_out.read(name, file, lambda file=file: decode(file))
            plan = None
            if image is not None:
                size = image.shape[:2]
                plan = left_out.read(
                    name, file, lambda size=size, name=name: PROTOCOL.plan(*size, name)
                )
            if plan is not None:
                writer.append({"image_id": name})
    left_out.require_some(len(names))
    return left_out


def test_bad_images_are_named_left_out_and_counted(folder, caplog):
    left_out = run(folder, [*BAD, "good.png"], folder / "out")
    assert sorted(left_out.reasons) == BAD
    header, records = read_records(folder / "out")
    assert [record["image_id"] for record in records] == ["good.png"]
    assert header["left_out"] == left_out.reasons
    for name in BAD:
        assert f"left out: image '{name}': " in caplog.text
        assert "\n" not in left_out.reasons[name]
    assert "8x48 is too small" in left_out.reasons["small.png"]
    assert "missing.png: FileNotFoundError" in left_out.reasons["missing.png"]


def test_resumption_and_the_merge_keep_them(folder):
    run(folder, ["cut.png", "good.png"], folder / "out", rank=0, processes=2)
    resumed = run(folder, ["cut.png", "small.png", "good.png"], folder / "out", resume=True)
    assert list(resumed.reasons) == ["cut.png", "small.png"]
    assert list(read_records(folder / "out")[0]["left_out"]) == ["cut.png", "small.png"]


def test_a_run_without_an_image_left_is_an_error(folder):
    with pytest.raises(ValueError, match="no image was measured, all 2 are left out.*text.png"):
        run(folder, ["text.png", "cut.png"], folder / "out")
    # Ultralytics, once imported, has PIL look for a plug-in first, which it doesn't find.
    error = "UnidentifiedImageError|ModuleNotFoundError"
    with pytest.raises(ValueError, match=f"no records.*text.png: ({error})"):
        read_records(folder / "out")


def test_faults_of_the_network_arent_caught(folder):
    with pytest.raises(KeyboardInterrupt):
        attempt(1, "a.png", lambda: (_ for _ in ()).throw(KeyboardInterrupt()))


def test_what_decoders_raise():
    found = attempt(1, "a.png", lambda: cv2.cvtColor(np.zeros((2, 2)), cv2.COLOR_BGR2RGB))
    assert isinstance(found, BadImage) and "a.png: error: " in found.reason


@pytest.mark.parametrize(
    "shape, says",
    [((5, 7, 3), "one channel"), ((7, 5), "7x5, its image 5x7.*EXIF"), ((6, 7), "6x7, its image")],
)
def test_labels_that_dont_fit(shape, says):
    check_labels(np.zeros((5, 7), np.uint8), (5, 7), "i")
    with pytest.raises(BadImage, match=f"image 'i': i.png.*{says}"):
        check_labels(np.zeros(shape, np.uint8), (5, 7), "i", "i.png")
