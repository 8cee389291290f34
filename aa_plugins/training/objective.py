"""What the student is asked, by what networks say: classes of images and pixels, or instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from aa_plugins.training.average import phase_average
from aa_plugins.training.loss import divergence
from aa_plugins.training.views import MovedViews


class Objective(Protocol):
    """How predictions of moved views are averaged, learnt and compared."""

    def target(self, teacher: nn.Module, window: torch.Tensor, moved: MovedViews) -> Any:
        """What the teacher says of windows (N, 3, H, W) on the average of their views."""

    def loss(
        self, student: nn.Module, view: torch.Tensor, target: Any, moved: MovedViews, number: int
    ) -> torch.Tensor:
        """How far the student is from it on a view (N, 3, h, w), a scalar with a gradient."""

    def agreement(
        self, network: nn.Module, teacher: nn.Module, windows: torch.Tensor, moved: MovedViews
    ) -> Sequence[float]:
        """Of windows: the loss, and agreement in [0, 1] with the average, with the teacher on the
        same view, and of the network with itself on two views."""


class Classes:
    """Of networks (N, 3, h, w) → logits, (N, C) or (N, C, h', w'): KL from the mean probability."""

    def target(self, teacher: nn.Module, window: torch.Tensor, moved: MovedViews) -> torch.Tensor:
        return phase_average(teacher, window, moved)

    def loss(
        self,
        student: nn.Module,
        view: torch.Tensor,
        target: torch.Tensor,
        moved: MovedViews,
        number: int,
    ) -> torch.Tensor:
        return divergence(target, moved.aligned(student(view).float(), number))

    def agreement(
        self, network: nn.Module, teacher: nn.Module, windows: torch.Tensor, moved: MovedViews
    ) -> Sequence[float]:
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
