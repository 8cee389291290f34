"""What of a network is trained, and how its norms behave meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from aa_plugins.layers import filters_of
from aa_plugins.training.processes import rank_and_processes
from aa_plugins.training.settings import Settings

NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)


@contextmanager
def trained_parameters(student: nn.Module, settings: Settings) -> Iterator[list[dict]]:
    """Parameter groups for the optimizer: those of the filters, and the others at `lr`.

    Parameters that aren't trained need no gradient meanwhile; those that their owner froze stay
    frozen.

    Raises:
        ValueError: where nothing would be trained.
    """
    wanted = {id(p): p.requires_grad for p in student.parameters()}
    filters = {id(p) for _, layer in filters_of(student) for p in layer.parameters()}
    norms = {id(p) for m in student.modules() if isinstance(m, NORMS) for p in m.parameters()}
    if settings.train == "filters":
        wanted = {key: needed and key in filters | norms for key, needed in wanted.items()}
    before = [(p, p.requires_grad) for p in student.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(wanted[id(parameter)])
        trained = [p for p in student.parameters() if p.requires_grad]
        if not trained:
            raise ValueError(
                f"train={settings.train!r} leaves nothing to train: the student has neither "
                'filters with parameters nor norms that need a gradient; use train="all"'
            )
        rows = ((True, settings.filter_lr), (False, settings.lr))
        groups = [
            {"params": [p for p in trained if (id(p) in filters) is of_filter], "peak": rate}
            for of_filter, rate in rows
        ]
        yield [group for group in groups if group["params"]]
    finally:
        for parameter, needed in before:
            parameter.requires_grad_(needed)


def set_mode(student: nn.Module, settings: Settings) -> None:
    """Eval mode (no dropout), with norms on batch statistics where `statistics` says so."""
    student.eval()
    if settings.statistics == "data":
        for module in student.modules():
            if isinstance(module, _BatchNorm):
                module.train()


def check_statistics(student: nn.Module, settings: Settings) -> None:
    """Raise ValueError where processes would each normalise by statistics of their own."""
    alone = any(
        isinstance(m, _BatchNorm) and not isinstance(m, nn.SyncBatchNorm) for m in student.modules()
    )
    if settings.statistics == "data" and alone and rank_and_processes()[1] > 1:
        raise ValueError(
            'statistics="data" differ between processes: use statistics="frozen", or '
            "nn.SyncBatchNorm.convert_sync_batchnorm(student) on GPUs"
        )
