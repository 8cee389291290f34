"""The checkpoints that mmengine's runner loads by itself: read without running code of theirs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from aa_plugins.checkpoints import check_finite, read_checkpoint

# By which torch.load refuses code whatever its caller asks for.
VARIABLE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """In place of mmengine's own, which runs the code of a file that it can't load otherwise.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a file that is no checkpoint, or weights that aren't finite.
    """
    checkpoint = dict(read_checkpoint(Path(filename).expanduser(), HistoryBuffer))
    check_finite(checkpoint.get("state_dict", checkpoint), {}, filename)
    return checkpoint


@contextmanager
def weights_only() -> Iterator[None]:
    """Meanwhile no `torch.load` of this process runs code, downloads of mmengine included."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before})
