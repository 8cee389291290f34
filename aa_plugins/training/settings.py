"""How a network is stabilized: every choice that its result depends on."""

from __future__ import annotations

from dataclasses import dataclass, fields

from aa_plugins.config import check_choice, check_positive_int

TRAINED = ("all", "filters")
STATISTICS = ("frozen", "data")
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Settings:
    """Choices of :func:`stabilize`.

    Args:
        stride: S, the network's total stride in pixels: views move within it.
        size: (h, w) of the views in pixels; images are cropped to windows S - 1 larger. Their
            remainder by S should be that of the images the network is used on: one that pads by
            the remainder ("same" padding) samples on another grid at other sizes.
        views: K, of an image in a step.
        batch: images in a step, over all processes.
        steps: of the optimizer (Adam); 0 trains nothing and takes over statistics alone.
        lr: of all weights but the filters'; after a tenth of the steps to rise, it falls as a
            cosine.
        filter_lr: of the predicted filters.
        train: "all", or "filters": predicted filters and the affine part of norms alone.
        estimate: images from which the student's norms take over the teacher's statistics before
            anything is trained, see :func:`transfer_statistics`; 0 leaves them as they are.
        statistics: of the norms: "frozen", or "data": batch statistics, as in training.
        margin: pixels along the overlap's edge that aren't compared.
        flip: mirror every other image.
        seed: of order, windows, flips and phases.
        precision: of the forward passes.
        check_every: steps between looks at the held-out images, and between checkpoints.
        patience: looks without a smaller loss, after which it stops; 0 never stops.
        workers: processes that load images.

    Raises:
        ValueError: for a value out of range.
    """

    stride: int
    size: tuple[int, int]
    views: int = 4
    batch: int = 8
    steps: int = 200
    lr: float = 1e-4
    filter_lr: float = 1e-3
    train: str = "all"
    estimate: int = 64
    statistics: str = "frozen"
    margin: int = 0
    flip: bool = True
    seed: int = 0
    precision: str = "float32"
    check_every: int = 50
    patience: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        check_choice("train", self.train, TRAINED)
        check_choice("statistics", self.statistics, STATISTICS)
        check_choice("precision", self.precision, PRECISIONS)
        for name in ("stride", "views", "batch", "check_every"):
            check_positive_int(name, getattr(self, name))
        counts = ("steps", "estimate", "margin", "seed", "patience", "workers")
        for name in (*counts, "lr", "filter_lr"):
            if not isinstance(getattr(self, name), (int, float)):
                raise ValueError(f"{name}={getattr(self, name)!r} must be a number")
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be 0 or more")
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size={self.size!r} must be the height and width of a view")
        if not 2 <= self.views <= self.stride**2:
            raise ValueError(
                f"views={self.views}: choose 2 to {self.stride**2}, the phases of a stride of "
                f"{self.stride}"
            )

    @property
    def window(self) -> tuple[int, int]:
        """(H, W) of what all views of an image are cut from."""
        return self.size[0] + self.stride - 1, self.size[1] + self.stride - 1

    def of_result(self) -> dict:
        """What two runs must share to end alike: all but the number of loaders."""
        return {
            f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v
            for f in fields(self)
            if f.name != "workers"
        }
