import numpy as np
import pytest

from aa_plugins.report import flip_picture
from aa_plugins.report.flips import FLIP

IMAGE = np.full((10, 20, 3), 128, np.uint8)
NAMES = ["ground", "disc", "star"]


def labels(flipped: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.zeros((10, 20), np.int64)
    second = first.copy()
    second.flat[:flipped] = 1
    return first, second


def titles(figure) -> list[str]:
    return [panel.get_title() for panel in figure.axes]


def test_flips_are_counted_and_coloured():
    figure = flip_picture(IMAGE, {"baseline": labels(10), "adaptive": labels(3)}, NAMES, (0, 1))
    assert {"flips: 5.00 % of the pixels", "flips: 1.50 % of the pixels"} <= set(titles(figure))
    assert "1 px right" in figure.get_suptitle()
    panel = next(p for p in figure.axes if p.get_title() == "flips: 1.50 % of the pixels")
    drawn = panel.get_images()[0].get_array()
    coloured = np.all(np.isclose(drawn, FLIP), axis=2)
    assert coloured.ravel()[:3].all() and coloured.sum() == 3


def test_legend_names_the_classes_that_appear():
    figure = flip_picture(IMAGE, {"model": labels(4)}, NAMES, truth=np.full((10, 20), 255))
    (legend,) = [panel.get_legend() for panel in figure.axes if panel.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == ["ground", "disc", "flipped"]
    truth = next(panel for panel in figure.axes if panel.get_title() == "ground truth")
    assert not truth.get_images()[0].get_array().any()


def test_palette_is_used():
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    figure = flip_picture(IMAGE, {"model": labels(1)}, NAMES, palette=palette)
    view_b = next(panel for panel in figure.axes if panel.get_title() == "view B")
    drawn = view_b.get_images()[0].get_array()
    assert drawn[0, 0].tolist() == [0, 1, 0] and drawn[5, 5].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    "shift, words",
    [((1, 0), "1 px down"), ((-2, 0.5), "2 px up and 0.5 px right"), ((0, -1), "1 px left")],
)
def test_shift_in_words(shift, words):
    assert words in flip_picture(IMAGE, {"model": labels(1)}, NAMES, shift).get_suptitle()


def test_labels_of_another_size_are_refused():
    first, second = labels(1)
    with pytest.raises(ValueError, match=r"baseline: labels are \(10, 19\)"):
        flip_picture(IMAGE, {"baseline": (first, second[:, 1:])}, NAMES)
