"""Filters may learn at a rate of their own: the loss hardly moves them at the network's."""

from __future__ import annotations

import logging

import torch
from torch import nn

from aa_plugins.layers import filters_of

logger = logging.getLogger(__name__)


def set_filter_rate(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    factor: float = 1.0,
    weight_decay: float | None = None,
) -> None:
    """Move the filters' parameters to groups of their own; call it before a scheduler is built.

    Where neither argument changes anything the groups stay as they are, as checkpoints know them.

    Args:
        factor: of the learning rate that they have.
        weight_decay: in place of the one that they have; None leaves it.
    """
    if factor == 1.0 and weight_decay is None:
        return
    ours = {id(p) for _, layer in filters_of(model) for p in layer.parameters()}
    if not ours:
        logger.warning("No filter has parameters: their own rate and decay change nothing")
    for group in list(optimizer.param_groups):
        filters = [p for p in group["params"] if id(p) in ours]
        if not filters:
            continue
        own = {**group, "params": filters, "lr": group["lr"] * factor}
        if weight_decay is not None:
            own["weight_decay"] = weight_decay
        group["params"] = [p for p in group["params"] if id(p) not in ours]
        optimizer.add_param_group(own)
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
