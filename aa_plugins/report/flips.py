"""A picture of where predictions flip when the view moves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

Array = np.ndarray
FLIP = (1.0, 0.0, 0.35)


def flip_picture(
    image: Array,
    predictions: Mapping[str, tuple[Array, Array]],
    class_names: Sequence[str],
    shift: tuple[float, float] = (1, 1),
    truth: Array | None = None,
    palette: Array | None = None,
) -> Figure:
    """Predictions of two views of one image, and the pixels where they differ, per model.

    Args:
        image: (H, W, 3) uint8 RGB, the overlap of the two views.
        predictions: model name to its labels on view A and on view B, each (H, W) integers cut to
            the overlap and aligned with the image.
        class_names: a name per label.
        shift: (dy, dx) from view A to view B in pixels of the network's input, for the captions.
        truth: (H, W) labels; those outside the classes are drawn black.
        palette: (classes, 3) uint8; distinct colours unless given.
    Raises:
        ValueError: labels of another size than the image.
    """
    height, width = image.shape[:2]
    for name, maps in {**predictions, "truth": () if truth is None else (truth,)}.items():
        for labels in maps:
            if labels.shape != (height, width):
                raise ValueError(
                    f"{name}: labels are {labels.shape}, the image is {(height, width)}; "
                    "cut both to the overlap of the views"
                )
    colours = palette_of(len(class_names)) if palette is None else np.asarray(palette) / 255
    panel_width = 3.0
    columns = 1 + len(predictions)
    size = (panel_width * columns, 3 * (panel_width * height / width + 0.3) + 0.4)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = figure.subplots(3, columns, squeeze=False)
    figure.suptitle(f"Where predictions flip when the view moves by {_moved(shift)}")

    _show(panels[0, 0], image, "image")
    if truth is not None:
        _show(panels[1, 0], _paint(truth, colours), "ground truth")
    shown = [labels for pair in predictions.values() for labels in pair]
    _legend(panels[2, 0], class_names, colours, shown if truth is None else [*shown, truth])
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2) / 255
    for column, (name, (first, second)) in enumerate(predictions.items(), start=1):
        flips = first != second
        _show(panels[0, column], _paint(first, colours), f"{name}\nview A")
        _show(panels[1, column], _paint(second, colours), "view B")
        faded = np.where(flips[..., None], FLIP, 0.35 + 0.5 * grey)
        _show(panels[2, column], faded, f"flips: {100 * flips.mean():.2f} % of the pixels")
    for panel in panels.flat:
        panel.set_axis_off()
    return figure


def _show(panel: Axes, picture: Array, title: str) -> None:
    panel.imshow(picture, interpolation="nearest")
    panel.set_title(title, fontsize="medium")


def _paint(labels: Array, colours: Array) -> Array:
    known = (labels >= 0) & (labels < len(colours))
    return np.where(known[..., None], colours[np.where(known, labels, 0)], 0.0)


def _legend(
    panel: Axes, class_names: Sequence[str], colours: Array, shown: Sequence[Array]
) -> None:
    present = np.unique(np.concatenate([labels.ravel() for labels in shown]))
    patches = [
        Patch(color=colours[label], label=class_names[label])
        for label in present
        if 0 <= label < len(class_names)
    ]
    patches.append(Patch(color=FLIP, label="flipped"))
    panel.legend(
        handles=patches, loc="center", ncols=1 + len(patches) // 9, fontsize="small", frameon=False
    )


def _moved(shift: tuple[float, float]) -> str:
    down, right = shift
    parts = [
        f"{abs(value):g} px {direction[value < 0]}"
        for value, direction in ((down, ("down", "up")), (right, ("right", "left")))
        if value
    ]
    return " and ".join(parts) or "nothing"


def palette_of(classes: int) -> Array:
    """Distinct, muted colours: none comes near the colour of the flips."""
    names = ("Set2", "Dark2", "Pastel1")
    table = np.concatenate([np.array(colormaps[name].colors) for name in names])
    return table[np.arange(classes) % len(table)]
