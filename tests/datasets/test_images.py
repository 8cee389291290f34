"""Images from the usual folders, and what is known of them."""

import numpy as np
import pytest
from PIL import Image

from aa_plugins.datasets.images import ClassifiedImages, SegmentedImages
from aa_plugins.evaluation import BadImage


def save(path, size=(4, 6), value=0, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full((*size, 3) if mode is None else size, value, np.uint8)
    Image.fromarray(array).save(path, **options)


def test_class_folders_are_numbered_by_name(tmp_path):
    for name in ("cat/1.png", "ape/2.png", "bee/deep/1.png"):
        save(tmp_path / name)
    images = ClassifiedImages(tmp_path, num_classes=3)
    assert images.ids == ["ape/2.png", "bee/deep/1.png", "cat/1.png"]
    assert [images.truth(index) for index in range(3)] == [0, 1, 2]


def test_a_number_in_a_folders_name_is_the_class(tmp_path):
    for name in ("7/1.png", "207_n02099601/1.png"):
        save(tmp_path / name)
    images = ClassifiedImages(tmp_path, num_classes=1000)
    assert [images.truth(index) for index in range(2)] == [207, 7]
    with pytest.raises(ValueError, match="class 207, the network 10 classes"):
        ClassifiedImages(tmp_path, num_classes=10)


def test_classes_that_cannot_be_told_are_refused(tmp_path):
    save(tmp_path / "cat/1.png")
    with pytest.raises(ValueError, match="1 class folders, the network 1000 classes: call each"):
        ClassifiedImages(tmp_path, num_classes=1000)


def test_images_right_in_the_folder_have_no_class(tmp_path):
    save(tmp_path / "1.png")
    assert ClassifiedImages(tmp_path, num_classes=1000).truth(0) is None


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no image in"):
        ClassifiedImages(tmp_path, 2)
    with pytest.raises(FileNotFoundError, match="no folder"):
        ClassifiedImages(tmp_path / "none", 2)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("a/1.jpg", "a/1.png"),
        ("ulm/ulm_1_leftImg8bit.png", "ulm/ulm_1_gtFine_labelTrainIds.png"),
        ("0006R0.png", "0006R0_L.png"),
    ],
)
def test_labels_of_camvid_voc_and_cityscapes(tmp_path, image, label):
    save(tmp_path / "images" / image)
    save(tmp_path / "labels" / label, value=3, mode="L")
    save(tmp_path / "labels/ulm/ulm_1_gtFine_labelIds.png", value=9, mode="L")
    images = SegmentedImages(tmp_path / "images", tmp_path / "labels")
    pixels, labels = images.read(0)
    assert pixels.shape == (4, 6, 3) and np.array_equal(labels, np.full((4, 6), 3))


def test_images_without_labels_are_left_out_and_counted(tmp_path):
    for name in ("1", "2", "3"):
        save(tmp_path / f"images/{name}.jpg")
    save(tmp_path / "labels/2.png", mode="L")
    images = SegmentedImages(tmp_path / "images", tmp_path / "labels")
    assert images.ids == ["2.jpg"] and images.unlabelled == 2


@pytest.mark.parametrize("labels, reason", [((4, 5), "4x5"), ("colours", "one channel")])
def test_labels_that_do_not_fit_are_named(tmp_path, labels, reason):
    save(tmp_path / "images/1.png")
    if labels == "colours":
        save(tmp_path / "labels/1.png")
    else:
        save(tmp_path / "labels/1.png", size=labels, mode="L")
    with pytest.raises(BadImage, match=reason):
        SegmentedImages(tmp_path / "images", tmp_path / "labels").read(0)


def test_exif_orientation_is_followed(tmp_path):
    save(tmp_path / "1.jpg", exif=_rotated())
    assert ClassifiedImages(tmp_path, 2).read(0)[0].shape == (6, 4, 3)


def _rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif
