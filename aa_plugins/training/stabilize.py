"""Stabilize: a trained network becomes shift consistent without labels.

A frozen teacher predicts each image at several sampling phases; the student, the same network with
filters put in, learns to give the mean of those predictions at every single phase:

    loss = mean over views i of KL(phase average of the teacher ‖ student on view i)

What is averaged and compared of other networks, such as detectors, is an :class:`Objective`.
Several processes of an initialised torch.distributed share each step's images, and end with the
weights that one process ends with.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from aa_plugins.training import state as states
from aa_plugins.training.batches import PHASES, drawn_alike, samples, windows
from aa_plugins.training.measure import Agreement, agreement
from aa_plugins.training.objective import Classes, Objective
from aa_plugins.training.parameters import check_statistics, set_mode, trained_parameters
from aa_plugins.training.processes import average_gradients, rank_and_processes
from aa_plugins.training.settings import Settings
from aa_plugins.training.statistics import transfer_statistics
from aa_plugins.training.views import moved_views, random_offsets

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Report:
    """What a stabilization did; agreements on the held-out images, None where there were none.

    teacher: of the teacher with its own phase average, what there is to win.
    before, after: of the student.
    kept: steps of the weights that were kept, those with the smallest loss on held-out images.
    losses: held-out loss by step.
    seconds: of this process, without what was done before an interruption.
    """

    teacher: Agreement | None
    before: Agreement | None
    after: Agreement | None
    steps: int
    kept: int
    losses: dict[int, float]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        rows = ("teacher", "before", "after")
        lines = [f"{name}: {getattr(self, name)}" for name in rows if getattr(self, name)]
        return "\n".join([*lines, f"{self.kept} of {self.steps} steps, {self.seconds:.0f} s"])


def stabilize(
    student: nn.Module,
    teacher: nn.Module,
    images: Sequence[torch.Tensor],
    settings: Settings,
    held_out: Sequence[torch.Tensor] = (),
    folder: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    objective: Objective | None = None,
) -> Report:
    """Train `student`, in place, to give at every phase what `teacher` gives on their average.

    Memory holds the graph of one view, however many there are.

    Args:
        student: (N, 3, h, w) → logits, (N, C) or (N, C, h', w'), or what the objective takes;
            usually the teacher's copy with filters put in. It is left in eval mode, on its device.
        teacher: the trained network, of the same outputs on the same device; it stays as it is.
        images: a sequence, such as a torch Dataset, of (3, H, W) float tensors as the networks
            take them, each at least as large as `settings.window`.
        held_out: images that aren't trained on; they decide which weights are kept, and when to
            stop.
        folder: where checkpoints go; none are written without.
        resume: go on from the checkpoint in `folder`, where there is one.
        progress: show a bar.
        objective: how predictions are averaged and compared; :class:`Classes` by default.

    Raises:
        ValueError: for settings that don't fit the network, the images, the processes or the
            checkpoint; for a loss that isn't finite.
    """
    begun = time.monotonic()
    rank, processes = rank_and_processes()
    if not len(images):
        raise ValueError("no images to stabilize on: give at least one")
    if settings.batch % processes:
        raise ValueError(
            f"batch={settings.batch} can't be shared by {processes} processes: choose a multiple"
        )
    if resume and folder is None:
        raise ValueError("resume=True needs the folder of the checkpoint")
    check_statistics(student, settings)
    student.eval()
    with _frozen(teacher), trained_parameters(student, settings) as groups:
        run = _Run(student, teacher, groups, settings, held_out, objective or Classes())
        loaded = states.load(Path(folder), settings.of_result(), run.device) if resume else None
        if loaded is None and settings.estimate:
            transfer_statistics(student, teacher, samples(images, settings))
        run.start(loaded)
        silent = not progress or rank > 0
        steps = windows(images, settings, run.step, rank, processes)
        bar = tqdm(steps, "stabilize", settings.steps, initial=run.step, disable=silent)
        for step, window in bar:
            if run.stopped:
                break
            bar.set_postfix(loss=f"{run.train(step, window):.4f}", refresh=False)
            if run.step % settings.check_every == 0 or run.step == settings.steps:
                run.look()
                if folder is not None and rank == 0:
                    states.save(Path(folder), run.state())
        return run.finish(time.monotonic() - begun)


class _Run:
    """One stabilization between its steps."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        groups: list[dict],
        settings: Settings,
        held_out: Sequence[torch.Tensor],
        objective: Objective,
    ) -> None:
        self.objective = objective
        self.student, self.teacher, self.settings = student, teacher, settings
        self.held_out = held_out
        self.device = next(student.parameters()).device
        self.optimizer = torch.optim.Adam(groups)
        self.parameters = [p for group in groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=settings.precision == "float16"
        )
        self.step, self.kept = 0, 0
        self.losses: dict[int, float] = {}
        self.agreements: dict[str, Agreement | None] = {"teacher": None, "before": None}
        self.best: dict[str, torch.Tensor] | None = None

    def start(self, loaded: dict[str, Any] | None) -> None:
        if loaded is None:
            set_mode(self.student, self.settings)
            if self.held_out:
                self.agreements["teacher"] = self.measure(self.teacher)
                self.agreements["before"] = self.measure(self.student)
                self.losses[0] = self.agreements["before"].loss
                self.best = deepcopy(self.student.state_dict())
            return
        self.student.load_state_dict(loaded["student"])
        self.optimizer.load_state_dict(loaded["optimizer"])
        self.scaler.load_state_dict(loaded["scaler"])
        self.step, self.kept, self.losses = loaded["step"], loaded["kept"], loaded["losses"]
        self.best = loaded["best"]
        self.agreements = {
            name: row and Agreement(**row) for name, row in loaded["agreements"].items()
        }

    def state(self) -> dict[str, Any]:
        return {
            "settings": self.settings.of_result(),
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "kept": self.kept,
            "losses": self.losses,
            "best": self.best,
            "agreements": {name: row and row.to_dict() for name, row in self.agreements.items()},
        }

    @property
    def stopped(self) -> bool:
        """Whether the held-out loss hasn't fallen for long enough."""
        patience = self.settings.patience * self.settings.check_every
        return bool(patience) and self.step - self.kept >= patience

    def train(self, step: int, window: torch.Tensor) -> float:
        """One step of the optimizer; the loss of this process's images."""
        settings = self.settings
        random = np.random.default_rng((settings.seed, PHASES, step))
        offsets = random_offsets(settings.views, settings.stride, random)
        moved = moved_views(settings.size, offsets, settings.margin)
        window = window.to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * _rise_and_fall(step, settings.steps)
        set_mode(self.student, settings)
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast(), torch.no_grad():
            target = self.objective.target(self.teacher, window, moved)
        total = 0.0
        for number, view in enumerate(moved.inputs(window)):
            with self.autocast(), drawn_alike(settings.seed, PHASES, step, number):
                loss = self.objective.loss(self.student, view, target, moved, number)
            loss = loss / settings.views
            if not torch.isfinite(loss):
                raise ValueError(
                    f"step {step}: the loss isn't finite; lower lr or filter_lr, or use "
                    'precision="float32"'
                )
            self.scaler.scale(loss).backward()
            total += loss.item()
        average_gradients(self.parameters)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step = step + 1
        return total

    def look(self) -> None:
        """Measure on the held-out images, and keep the weights where they are the best so far."""
        if not self.held_out:
            self.kept = self.step
            return
        loss = self.measure(self.student).loss
        if loss < min(self.losses.values()):
            self.kept, self.best = self.step, deepcopy(self.student.state_dict())
        self.losses[self.step] = loss

    def measure(self, network: nn.Module) -> Agreement:
        self.student.eval()
        with self.autocast():
            return agreement(network, self.teacher, self.held_out, self.settings, self.objective)

    def finish(self, seconds: float) -> Report:
        if self.best is not None:
            self.student.load_state_dict(self.best)
        after = self.measure(self.student) if self.held_out else None
        self.student.eval()
        return Report(
            **self.agreements,
            after=after,
            steps=self.step,
            kept=self.kept,
            losses=self.losses,
            seconds=seconds,
        )

    def autocast(self) -> torch.autocast:
        dtype = DTYPES.get(self.settings.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)


@contextmanager
def _frozen(teacher: nn.Module):
    """The teacher in eval mode and without gradients, and afterwards as it was."""
    modes = [(module, module.training) for module in teacher.modules()]
    needed = [(parameter, parameter.requires_grad) for parameter in teacher.parameters()]
    teacher.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in needed:
            parameter.requires_grad_(requires_grad)


def _rise_and_fall(step: int, steps: int) -> float:
    """Share of the peak rate: linear over the first tenth of the steps, then a cosine to 0."""
    rise = max(1, steps // 10)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
