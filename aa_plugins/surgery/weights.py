"""Loading a checkpoint into a converted network, and auditing that it fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from aa_plugins.layers import filters_of


def filter_keys(model: nn.Module) -> set[str]:
    """Keys of the state dict that conversion added."""
    return {f"{name}.{key}" for name, layer in filters_of(model) for key in layer.state_dict()}


def load_weights(
    model: nn.Module, checkpoint: str | Path | Mapping[str, torch.Tensor]
) -> list[str]:
    """Load the weights of a plain or of a converted network into a converted one.

    Args:
        model: the converted network.
        checkpoint: a state dict, or the path of one; a "state_dict" or "model" entry is unwrapped.

    Returns:
        The filters that the checkpoint doesn't hold, which keep their start.

    Raises:
        ValueError: for a checkpoint of another architecture, naming the first keys that differ.
    """
    state, source = checkpoint, "the checkpoint"
    if isinstance(checkpoint, (str, Path)):
        state, source = torch.load(checkpoint, map_location="cpu", weights_only=True), checkpoint
    for entry in ("state_dict", "model"):
        if isinstance(state.get(entry), Mapping):
            state = state[entry]
    own = model.state_dict()
    added = filter_keys(model)
    missing = [key for key in own if key not in state and key not in added]
    unexpected = [key for key in state if key not in own]
    reshaped = [k for k in own if k in state and own[k].shape != state[k].shape]
    for problem, keys in (
        ("lacks", missing),
        ("has no place for", unexpected),
        ("has another shape at", reshaped),
    ):
        if keys:
            subject = source if problem != "has no place for" else type(model).__name__
            raise ValueError(
                f"{subject} {problem} {keys[0]!r} and {len(keys) - 1} more keys: is it a "
                f"checkpoint of another architecture than {type(model).__name__}?"
            )
    model.load_state_dict(state, strict=False)
    return [
        name
        for name, layer in filters_of(model)
        if not any(f"{name}.{key}" in state for key in layer.state_dict())
    ]
