"""How far a network agrees with itself, with its teacher and with the teacher's phase average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from aa_plugins.training.batches import HELD_OUT, drawn_alike, window_of
from aa_plugins.training.objective import Objective
from aa_plugins.training.processes import mean_over_processes, rank_and_processes
from aa_plugins.training.settings import Settings
from aa_plugins.training.views import moved_views, random_offsets


@dataclass(frozen=True)
class Agreement:
    """Means over images and views; shares in percent: equal top-1 classes, of images or of pixels,
    or what the objective compares.

    loss: divergence from the teacher's phase average, nats, or the objective's own.
    average: agreement with that average.
    teacher: with the teacher on the same view.
    self: with itself on another view of an image.
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
    network: nn.Module,
    teacher: nn.Module,
    images: Sequence[torch.Tensor],
    settings: Settings,
    objective: Objective,
) -> Agreement:
    """On the centred window of every image, at random phases that are the same in every call.

    Args:
        network, teacher: as the objective takes them, both in eval mode and on one device.
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
        with drawn_alike(settings.seed, HELD_OUT, start):
            means = objective.agreement(network, teacher, windows.to(device), moved)
        sums += len(members) * torch.tensor([*means, 1.0], dtype=torch.float64)
    *means, images_seen = mean_over_processes(sums).tolist()
    loss, *shares = (value / images_seen for value in means)
    return Agreement(loss, *(100 * share for share in shares))
