"""A filter is new: it has to train, also inside a stage whose own weights are frozen."""

from __future__ import annotations

import logging

from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from aa_plugins.layers import filters_of

logger = logging.getLogger(__name__)


def unfreeze_filters(model: nn.Module) -> list[str]:
    """Make every filter with parameters trainable, with a norm that updates its statistics.

    `FREEZE_AT`, `CNNBlockBase.freeze()` and FrozenBN conversion don't know filters; called after
    them, this undoes what they did to filters, and to nothing else. Call it before the optimizer
    is built.

    Returns:
        Names of the filters that had been frozen.
    """
    thawed = []
    for name, layer in filters_of(model):
        frozen = [p for p in layer.parameters() if not p.requires_grad]
        if isinstance(getattr(layer, "norm", None), FrozenBatchNorm2d):
            layer.norm = _trainable(layer.norm).train(layer.training)
        elif not frozen:
            continue
        layer.requires_grad_(True)
        thawed.append(name)
    return thawed


def log_filters(model: nn.Module) -> None:
    """Make filters trainable, and log what of the anti-aliasing is trained."""
    thawed = unfreeze_filters(model)
    names = [name for name, _ in filters_of(model)]
    count = sum(p.numel() for _, layer in filters_of(model) for p in layer.parameters())
    if not names:
        logger.info("Anti-aliasing: no filter has parameters to train")
        return
    logger.info(
        f"Anti-aliasing: training {len(names)} filters ({count} parameters), whatever is frozen "
        f"around them: {', '.join(names)}"
    )
    if thawed:
        logger.info(f"Anti-aliasing: unfroze {len(thawed)} filters: {', '.join(thawed)}")


def _trainable(frozen: FrozenBatchNorm2d) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(frozen.num_features, eps=frozen.eps)
    norm = norm.to(device=frozen.weight.device, dtype=frozen.weight.dtype)
    norm.load_state_dict(frozen.state_dict(), strict=False)
    return norm
