"""Loading weights of any format that Detectron2 knows, and auditing that they fit."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from aa_plugins.checkpoints import (
    check_finite,
    existing,
    read_checkpoint,
    read_pickle,
    weights_in,
)
from aa_plugins.layers import filters_of
from aa_plugins.surgery import filter_keys

logger = logging.getLogger(__name__)


class AuditedCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, which runs no code of a file and keeps what didn't fit.

    Attributes:
        missing: keys of the model that the checkpoint doesn't hold, or holds in another shape.
    """

    missing: list[str] = []
    source = "the checkpoint"

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As Detectron2's, also for `path?matching_heuristics=True` and its own schemes.

        Raises:
            FileNotFoundError: where there is no such file.
            ValueError: for a file that is no checkpoint, or weights that aren't finite.
        """
        if path and "://" not in path:
            existing(path.partition("?")[0])
        self.source = path
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename: str) -> dict[str, Any]:
        # Foreign formats are named by their suffix: Detectron's and Caffe2's, and pycls'.
        foreign = {"matching_heuristics": True}
        if filename.endswith(".pkl"):
            found = read_pickle(filename)
            if "model" in found and "__author__" in found:
                return dict(found)
            blobs = found.get("blobs", found)
            state = {key: v for key, v in blobs.items() if not key.endswith("_momentum")}
            return {"model": state, "__author__": "Caffe2", **foreign}
        if filename.endswith(".pyth"):
            state = weights_in(read_checkpoint(filename), (), filename)
            state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
            return {"model": state, "__author__": "pycls", **foreign}
        return super()._load_file(filename)

    def _torch_load(self, f: str) -> dict[str, Any]:
        found = dict(read_checkpoint(f))
        return {**found, "model": weights_in(found, self.model.state_dict(), f)}

    def _load_model(self, checkpoint: Any) -> Any:
        check_finite(checkpoint["model"], self.model.state_dict(), self.source)
        incompatible = super()._load_model(checkpoint)
        reshaped = [key for key, *_ in incompatible.incorrect_shapes]
        self.missing = sorted({*incompatible.missing_keys, *reshaped})
        return incompatible


def load_detectron2_weights(model: nn.Module, path: str) -> list[str]:
    """Load trained weights into a model that is to be evaluated.

    Returns:
        The filters that the checkpoint doesn't hold. They keep their start: what is measured then
        is a swap without training.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a file that is no checkpoint, weights that aren't finite, or where anything
            but filters is missing.
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
