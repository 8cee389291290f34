"""Several processes as one: what torch.distributed has to add up."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import distributed, nn


def rank_and_processes() -> tuple[int, int]:
    """(0, 1) where torch.distributed isn't initialised."""
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all processes, on the CPU or where the backend wants it."""
    if rank_and_processes()[1] == 1:
        return values
    there = values.to("cuda" if distributed.get_backend() == "nccl" else values.device)
    distributed.all_reduce(there)
    return (there / distributed.get_world_size()).to(values.device)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Make every process's gradients their mean over all of them."""
    if rank_and_processes()[1] == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # as of a head that saw nothing in this process
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.copy_(mean_over_processes(parameter.grad))
