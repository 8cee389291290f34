"""Loading weights of any format that Detectron2 knows, and auditing that they fit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
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


QUERY = "?matching_heuristics=True"


def local_path(weights: str | Path) -> Path:
    """The file of a checkpoint: a path, "PATH?matching_heuristics=True", or an address that
    Detectron2 knows, such as detectron2://…, which is downloaded unless it was before.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for another query.
    """
    text = str(weights)
    parsed = urlparse(text)
    if parsed.query and f"?{parsed.query}" != QUERY:
        raise ValueError(f"weights {text}: the only query is {QUERY}")
    name = parsed._replace(query="").geturl()
    if "://" in name:
        try:
            return Path(PathManager.get_local_path(name))
        except Exception as error:  # whatever a download, or an unknown scheme, raises
            raise FileNotFoundError(f"weights {text} can't be fetched: {error}") from error
    return existing(name)


def last_checkpoint(folder: str | Path) -> str:
    """The checkpoint that a training left last in its output folder, or "".

    Raises:
        FileNotFoundError: where the folder names one that isn't there.
    """
    checkpointer = DetectionCheckpointer(nn.Module(), str(folder), save_to_disk=False)
    if not checkpointer.has_checkpoint():
        return ""
    path = Path(checkpointer.get_checkpoint_file())
    if not path.is_file():
        raise FileNotFoundError(f"{folder}/last_checkpoint names {path}, which doesn't exist")
    return str(path)


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
        if path:
            local_path(path)
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


def load_start(model: nn.Module, path: str) -> None:
    """Load what a training starts from: of ImageNet, or a detector's of other classes.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it isn't a checkpoint, or holds nothing of this model.
    """
    if not path:
        logger.info("Training starts from random weights: none are given")
        return
    checkpointer = AuditedCheckpointer(model)
    checkpointer.load(path)
    missing = {*checkpointer.missing}
    own = {name for name, _ in model.named_parameters()} - filter_keys(model)
    if own <= missing:
        raise ValueError(
            f"{path} holds no weight of this model: give a checkpoint of its architecture (timm's "
            f"and torchvision's as FILE{QUERY})"
        )
    loaded = len(own) - len(own & missing)
    logger.info(f"Training starts with {loaded} of {len(own)} parameters from {path}")


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
