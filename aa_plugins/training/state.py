"""What a stabilization goes on from after an interruption."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from aa_plugins.checkpoints import read_checkpoint

FILE = "stabilize.pth"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write the state; a process killed meanwhile leaves the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"{FILE}.part"
    torch.save(state, beside)
    os.replace(beside, folder / FILE)


def load(folder: Path, settings: dict[str, Any], device: torch.device) -> Mapping[str, Any] | None:
    """The state in a folder, or None where there is none.

    Raises:
        ValueError: where it is of a run with other settings, or can't be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    state = read_checkpoint(path, device=device)
    for name, value in settings.items():
        if (old := state["settings"].get(name)) != value:
            raise ValueError(
                f"{path} is of a run with {name}={old!r}, this one has {value!r}: resume with the "
                "same settings, or use another folder"
            )
    return state
