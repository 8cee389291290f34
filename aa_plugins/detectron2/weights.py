"""Loading weights of any format that Detectron2 knows, and auditing that they fit."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from aa_plugins.layers import filters_of
from aa_plugins.surgery import filter_keys

logger = logging.getLogger(__name__)


class AuditedCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, which keeps what didn't fit.

    Attributes:
        missing: keys of the model that the checkpoint doesn't hold, or holds in another shape.
    """

    missing: list[str] = []

    def _load_model(self, checkpoint: Any) -> Any:
        incompatible = super()._load_model(checkpoint)
        reshaped = [key for key, *_ in incompatible.incorrect_shapes]
        self.missing = sorted({*incompatible.missing_keys, *reshaped})
        return incompatible


def load_weights(model: nn.Module, path: str) -> list[str]:
    """Load trained weights into a model that is to be evaluated.

    Returns:
        The filters that the checkpoint doesn't hold. They keep their start: what is measured then
        is a swap without training.

    Raises:
        ValueError: where anything else is missing.
    """
    checkpointer = AuditedCheckpointer(model)
    checkpointer.load(path)
    added = filter_keys(model)
    missing = [key for key in checkpointer.missing if key not in added]
    if missing:
        raise ValueError(
            f"{path} lacks {missing[0]!r} and {len(missing) - 1} more keys: is it a checkpoint of "
            "another architecture than the config's?"
        )
    lacking = [
        name
        for name, layer in filters_of(model)
        if any(f"{name}.{key}" in checkpointer.missing for key in layer.state_dict())
    ]
    if lacking:
        logger.warning(f"{path} holds no weights of the filters {', '.join(lacking)}: untrained")
    return lacking
