"""Mixed precision without a GPU: Detectron2's own trainer takes one for granted."""

from __future__ import annotations

import time
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from torch import nn


class CpuAmpTrainer(SimpleTrainer):
    """Runs the forward pass in bfloat16 on the CPU; its range needs no scaling of the loss.

    Weights are laid out channels last, as a CPU's convolutions in bfloat16 want them.
    """

    def __init__(self, model: nn.Module, data_loader: Any, optimizer: torch.optim.Optimizer):
        super().__init__(model.to(memory_format=torch.channels_last), data_loader, optimizer)

    def run_step(self) -> None:
        """One iteration, as SimpleTrainer's."""
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast("cpu", torch.bfloat16):
            losses = self.model(data)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self._write_metrics(losses, data_time)
        self.optimizer.step()
