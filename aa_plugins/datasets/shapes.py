"""Scenes of textured shapes on textured ground, drawn from a seed.

Stripes and checkers are a few pixels wide, and for discs and rectangles they alone tell the class:
a network that subsamples without a low-pass filter confuses them, differently at every shift.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

Array = np.ndarray
# A texture maps local coordinates and its period (all in pixels) to one or the other colour.
Texture = Callable[[Array, Array, float], Array]
# An outline maps local coordinates and the shape's radius (all in pixels) to inside or outside.
Outline = Callable[[Array, Array, float], Array]

# Odd, so that the middle sample of every pixel is its centre: image and mask come from one drawing.
SAMPLES = 3


def _stripes(u: Array, v: Array, period: float) -> Array:
    return np.sin(2 * np.pi * u / period) > 0


def _checkers(u: Array, v: Array, period: float) -> Array:
    return (np.sin(2 * np.pi * u / period) > 0) ^ (np.sin(2 * np.pi * v / period) > 0)


def _plain(u: Array, v: Array, period: float) -> Array:
    return np.ones(u.shape, bool)


def _disc(u: Array, v: Array, radius: float) -> Array:
    return np.hypot(u, v) < radius


def _rectangle(u: Array, v: Array, radius: float) -> Array:
    return (np.abs(u) < 0.9 * radius) & (np.abs(v) < 0.6 * radius)


def _bar(u: Array, v: Array, radius: float) -> Array:
    return (np.abs(u) < 1.6 * radius) & (np.abs(v) < 1.3)


def _star(u: Array, v: Array, radius: float, points: int = 5, inner: float = 0.45) -> Array:
    """A star whose corners lie at `radius` and whose notches lie at `inner * radius`."""
    half = np.pi / points
    # Folded into half a point: a straight edge from (1, 0) to the notch, in units of the radius.
    angle = np.abs((np.arctan2(v, u) + half) % (2 * half) - half)
    x, y = np.hypot(u, v) * np.cos(angle) / radius, np.hypot(u, v) * np.sin(angle) / radius
    notch_x, notch_y = inner * np.cos(half), inner * np.sin(half)
    return (1 - x) * notch_y > (1 - notch_x) * y


def _triangle(u: Array, v: Array, radius: float) -> Array:
    return _star(u, v, radius, points=3, inner=0.5)


@dataclass(frozen=True)
class ShapeClass:
    """One class of the data set: an outline filled with one of its textures."""

    name: str
    outline: Outline
    textures: tuple[Texture, ...]


# Label k + 1 of a scene is CLASSES[k]; label 0 is the ground.
CLASSES = (
    ShapeClass("striped disc", _disc, (_stripes,)),
    ShapeClass("checkered disc", _disc, (_checkers,)),
    ShapeClass("striped rectangle", _rectangle, (_stripes,)),
    ShapeClass("checkered rectangle", _rectangle, (_checkers,)),
    ShapeClass("triangle", _triangle, (_stripes, _checkers)),
    ShapeClass("star", _star, (_stripes, _checkers)),
    ShapeClass("bar", _bar, (_plain,)),
)


@dataclass(frozen=True)
class Scene:
    """An image with exact labels.

    image: (H, W, 3) uint8, RGB. instances: (H, W) int32, 0 on the ground and k where the k-th shape
    is visible. classes: the label (1 … len(CLASSES)) of shape k at position k - 1.
    """

    image: Array
    instances: Array
    classes: tuple[int, ...]

    @property
    def labels(self) -> Array:
        """(H, W) uint8: 0 ground, k + 1 for CLASSES[k]."""
        return np.array((0, *self.classes), np.uint8)[self.instances]


def draw_scene(height: int, width: int, rng: np.random.Generator) -> Scene:
    """Draw 4 to 8 shapes that may hide one another on textured ground.

    A pixel's colour is the mean over 3×3 samples, its label is that of the shape at its centre;
    shapes that no pixel shows are left out. Sizes grow with the image, textures don't.

    Args:
        height, width: pixels of the image, at least 32.
        rng: the only source of randomness.
    Raises:
        ValueError: an image smaller than 32 pixels.
    """
    if min(height, width) < 32:
        raise ValueError(f"shapes need images of at least 32x32 pixels, got {height}x{width}")
    colours = _ground(height, width, rng).repeat(SAMPLES, axis=0).repeat(SAMPLES, axis=1)
    instances = np.zeros(colours.shape[:2], np.int32)
    classes = rng.integers(1, len(CLASSES) + 1, size=rng.integers(4, 9))
    for instance, label in enumerate(classes, start=1):
        _paint(CLASSES[label - 1], instance, colours, instances, rng)
    image = colours.reshape(height, SAMPLES, width, SAMPLES, 3).mean(axis=(1, 3))
    image += rng.normal(0, 0.01, image.shape)
    centres = instances[SAMPLES // 2 :: SAMPLES, SAMPLES // 2 :: SAMPLES]
    visible = np.unique(centres[centres > 0])
    renumbered = np.zeros(len(classes) + 1, np.int32)
    renumbered[visible] = np.arange(1, len(visible) + 1)
    return Scene(
        image=np.round(255 * image.clip(0, 1)).astype(np.uint8),
        instances=renumbered[centres],
        classes=tuple(int(label) for label in classes[visible - 1]),
    )


def _ground(height: int, width: int, rng: np.random.Generator) -> Array:
    """Noise of several grain sizes around a mid grey: (H, W, 3) float32 in about [0, 1]."""
    ground = rng.uniform(0.35, 0.65, 3) + np.zeros((height, width, 3))
    for grain in (32, 8, 2):  # pixels
        grid = rng.normal(0, 0.06, (height // grain + 2, width // grain + 2, 3))
        ground += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return ground.astype(np.float32)


def _paint(
    shape: ShapeClass,
    instance: int,
    colours: Array,
    instances: Array,
    rng: np.random.Generator,
) -> None:
    """Paint one shape over what is there, in place, on the grid of samples."""
    height, width = (side / SAMPLES for side in instances.shape)
    radius = rng.uniform(0.1, 0.25) * min(height, width)
    centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
    turn, texture_turn = rng.uniform(0, 2 * np.pi, 2)
    period = rng.uniform(3, 5)
    texture = shape.textures[rng.integers(len(shape.textures))]
    dark, bright = rng.uniform(0, 0.35, 3), rng.uniform(0.65, 1, 3)

    window = tuple(
        slice(max(0, int((centre - 2 * radius) * SAMPLES)), int((centre + 2 * radius) * SAMPLES))
        for centre in (centre_y, centre_x)
    )
    y, x = np.mgrid[window] + 0.5
    y, x = y / SAMPLES - centre_y, x / SAMPLES - centre_x
    rows, columns = instances[window].shape  # the image's edge may cut the window
    y, x = y[:rows, :columns], x[:rows, :columns]

    inside = shape.outline(*_rotate(x, y, turn), radius)
    first = texture(*_rotate(x[inside], y[inside], texture_turn), period)[:, None]
    instances[window][inside] = instance
    colours[window][inside] = np.where(first, bright, dark)


def _rotate(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
