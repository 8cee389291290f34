"""What norms remember, after filters were put in: a filter changes the activations behind it.

Estimating statistics anew on a user's few images would replace those of the data that the network
was trained on. So only the change is taken over: the images' statistics in the student, in the
place that the same images' statistics have in the teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

Moments = tuple[torch.Tensor, torch.Tensor]


@torch.no_grad()
def transfer_statistics(
    student: nn.Module, teacher: nn.Module, batches: Sequence[torch.Tensor]
) -> list[str]:
    """Set the student's batch norms so that they normalise as the teacher's do, in place.

    A norm that the teacher has, too, gives the images' activations the mean and variance that they
    have behind the teacher's norm: a student that computes what the teacher does stays as it is. A
    norm of a filter takes the images' statistics.

    Args:
        student, teacher: in eval mode, on one device.
        batches: (N, 3, h, w) each; statistics are means over them.

    Returns:
        Names of the student's norms that were set.
    """
    device = next(teacher.parameters()).device
    known = dict(_batch_norms(teacher))
    totals: dict[str, Moments] = {}
    for batch in batches:
        theirs: dict[str, Moments] = {}

        def read(name: str, norm: nn.Module, x: torch.Tensor, theirs=theirs) -> None:
            theirs[name] = _moments(x)

        def place(name: str, norm: nn.Module, x: torch.Tensor, theirs=theirs) -> None:
            mean, variance = _moments(x)
            if name in theirs:
                scale = (variance + norm.eps) / (theirs[name][1] + norm.eps)
                mean = mean + (known[name].running_mean - theirs[name][0]) * scale.sqrt()
                variance = (known[name].running_var + norm.eps) * scale - norm.eps
            # In force at once, so that the norms behind it see what they will see.
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance.clamp_min(0))
            before = totals.get(name, (0.0, 0.0))
            totals[name] = before[0] + norm.running_mean, before[1] + norm.running_var

        with _watched(teacher, read):
            teacher(batch.to(device))
        with _watched(student, place):
            student(batch.to(device))
    norms = dict(_batch_norms(student))
    for name, (mean, variance) in totals.items():
        norms[name].running_mean.copy_(mean / len(batches))
        norms[name].running_var.copy_(variance / len(batches))
    return list(totals)


def _batch_norms(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Also the frozen ones of detectors, which are no subclass."""
    for name, module in network.named_modules():
        kept = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        if all(isinstance(tensor, torch.Tensor) for tensor in kept) and hasattr(module, "eps"):
            yield name, module


@contextmanager
def _watched(network: nn.Module, look) -> Iterator[None]:
    """Call look(name, norm, its input) before every batch norm runs."""
    handles = [
        norm.register_forward_pre_hook(lambda norm, x, name=name: look(name, norm, x[0]))
        for name, norm in _batch_norms(network)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _moments(x: torch.Tensor) -> Moments:
    """Mean and variance of each channel, (C,), of (N, C, …)."""
    flat = x.float().transpose(0, 1).flatten(1)
    return flat.mean(1), flat.var(1, unbiased=False)
