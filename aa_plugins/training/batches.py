"""Windows of images, step by step: the same ones however often a run was interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader

from aa_plugins.training.settings import Settings

# Streams of random numbers.
ORDER, WINDOW, PHASES, HELD_OUT, STATISTICS = range(5)


def windows(
    images: Sequence[torch.Tensor], settings: Settings, first: int, rank: int, processes: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Number of a step from `first` on, and this process's share of its windows, (n, 3, H, W).

    Every image comes once before any comes twice. All depends on seed and step alone.
    """

    def places(step: int) -> list[tuple[int, int]]:
        """(place in the run, index) of the images of a step that fall to this process."""
        start = step * settings.batch
        return [
            (place, _order(len(images), settings.seed, place // len(images))[place % len(images)])
            for place in range(start + rank, start + settings.batch, processes)
        ]

    steps = range(first, settings.steps)
    loader = DataLoader(
        images,
        batch_sampler=([index for _, index in places(step)] for step in steps),
        num_workers=settings.workers,
        collate_fn=list,
    )
    for step, batch in zip(steps, loader):
        yield (
            step,
            torch.stack(
                [
                    window_of(
                        image, settings, np.random.default_rng((settings.seed, WINDOW, place))
                    )
                    for (place, _), image in zip(places(step), batch)
                ]
            ),
        )


def samples(images: Sequence[torch.Tensor], settings: Settings) -> list[torch.Tensor]:
    """Batches of one view, (n, 3, h, w), of `estimate` images spread over all."""
    height, width = settings.size
    count = min(settings.estimate, len(images))
    views = [
        window_of(images[i], settings, np.random.default_rng((settings.seed, STATISTICS, int(i))))
        for i in np.linspace(0, len(images) - 1, count, dtype=int)
    ]
    views = [view[..., :height, :width] for view in views]
    return [torch.stack(views[i : i + settings.batch]) for i in range(0, count, settings.batch)]


def window_of(
    image: torch.Tensor, settings: Settings, random: np.random.Generator | None = None
) -> torch.Tensor:
    """A random window of an image, (3, H, W), mirrored or not; the centred one without `random`.

    Raises:
        ValueError: where the image is too small.
    """
    height, width = settings.window
    spare = image.shape[-2] - height, image.shape[-1] - width
    if min(spare) < 0:
        raise ValueError(
            f"an image of {image.shape[-2]}×{image.shape[-1]} pixels holds no window of "
            f"{height}×{width} (size {settings.size} and a stride of {settings.stride}): make the "
            "views smaller, or the images larger"
        )
    if random is None:
        top, left = spare[0] // 2, spare[1] // 2
    else:
        top, left = (int(random.integers(room + 1)) for room in spare)
    window = image[..., top : top + height, left : left + width]
    mirrored = random is not None and settings.flip and random.integers(2)
    return window.flip(-1) if mirrored else window


@lru_cache(maxsize=2)
def _order(images: int, seed: int, epoch: int) -> list[int]:
    return np.random.default_rng((seed, ORDER, epoch)).permutation(images).tolist()


@contextmanager
def drawn_alike(*key: int) -> Iterator[None]:
    """What torch draws inside, such as the proposals that a detector is trained on, depends on the
    key alone; what it draws afterwards, on what it has drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        yield
