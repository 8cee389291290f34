"""Constants of a filter, computed where and when they are used.

They are no buffers: a network that is built on the meta device, or emptied, gets its parameters and
buffers from a checkpoint, which doesn't hold what is always the same, and would run on whatever
lies in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def constant(
    layer: nn.Module, name: str, compute: Callable[[], torch.Tensor], like: torch.Tensor
) -> torch.Tensor:
    """A constant of `layer`, on the device and in the dtype of `like`.

    It is kept for the next call, but for tensors that outlive no context: fake ones, those that a
    compiler or exporter sees, those of inference mode.
    """
    if torch.compiler.is_compiling():
        return compute().to(like.device, like.dtype)
    kept = layer.__dict__.setdefault("constants", {})
    key = (name, like.device, like.dtype)
    if key in kept and type(like) is torch.Tensor:
        return kept[key]
    with torch.device("cpu"):
        made = compute().to(like.device, like.dtype)
    lasting = type(made) is type(like) is torch.Tensor and not made.is_inference()
    if lasting and not (made.is_meta or torch.jit.is_tracing()):
        kept[key] = made
    return made
