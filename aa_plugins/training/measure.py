"""How far a network agrees with itself, with its teacher and with the teacher's phase average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from aa_plugins.training.average import phase_average
from aa_plugins.training.batches import HELD_OUT, window_of
from aa_plugins.training.loss import divergence
from aa_plugins.training.processes import mean_over_processes, rank_and_processes
from aa_plugins.training.settings import Settings
from aa_plugins.training.views import MovedViews, moved_views, random_offsets


@dataclass(frozen=True)
class Agreement:
    """Means over images and views; shares, of images or of pixels, in percent.

    loss: divergence from the teacher's phase average, nats.
    average: equal top-1 class with that average.
    teacher: equal top-1 class with the teacher on the same view.
    self: equal top-1 class on two views of an image.
    """

    loss: float
    average: float
    teacher: float
    self: float

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}, agreement with the average {self.average:.2f} %, "
            f"with the teacher {self.teacher:.2f} %, with itself {self.self:.2f} %"
        )

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@torch.no_grad()
def agreement(
    network: nn.Module, teacher: nn.Module, images: Sequence[torch.Tensor], settings: Settings
) -> Agreement:
    """On the centred window of every image, at random phases that are the same in every call.

    Args:
        network, teacher: (N, 3, h, w) → logits, both in eval mode and on one device.
        images: (3, H, W) each.
    """
    device = next(teacher.parameters()).device
    rank, processes = rank_and_processes()
    sums = torch.zeros(5, dtype=torch.float64)
    starts = range(0, len(images), settings.batch)
    for start in starts[rank::processes]:
        members = range(start, min(start + settings.batch, len(images)))
        windows = torch.stack([window_of(images[number], settings) for number in members])
        random = np.random.default_rng((settings.seed, HELD_OUT, start))
        offsets = random_offsets(settings.views, settings.stride, random)
        moved = moved_views(settings.size, offsets, settings.margin)
        means = _agreement(network, teacher, windows.to(device), moved)
        sums += len(members) * torch.tensor([*means, 1.0], dtype=torch.float64)
    *means, images_seen = mean_over_processes(sums).tolist()
    loss, *shares = (value / images_seen for value in means)
    return Agreement(loss, *(100 * share for share in shares))


def _agreement(
    network: nn.Module, teacher: nn.Module, windows: torch.Tensor, moved: MovedViews
) -> list[float]:
    """The fields of Agreement, shares in [0, 1], for a batch of windows."""
    average = phase_average(teacher, windows, moved)
    rows, labels = [], []
    for number, view in enumerate(moved.inputs(windows)):
        logits = moved.aligned(network(view).float(), number)
        labels.append(logits.argmax(1))
        theirs = moved.aligned(teacher(view).float(), number).argmax(1)
        shares = _share(labels[-1], average.argmax(1)), _share(labels[-1], theirs)
        rows.append([float(divergence(average, logits)), *shares])
    following = labels[1:] + labels[:1]
    own = [_share(a, b) for a, b in zip(labels, following)]
    return [*np.mean(rows, axis=0), float(np.mean(own))]


def _share(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a == b).double().mean())
