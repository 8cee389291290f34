"""Inputs of a network: what the user gave, or what it most likely takes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

# (H, W) to run on where only the shape of an example is known: small, odd, and not square, so that
# borders that differ by a pixel show.
ODD_SIZE = (75, 107)
SEED = 0


@dataclass(frozen=True)
class Inputs:
    """What a forward pass takes, by position and by name."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, example: Any) -> Inputs:
        """A tuple is what the network takes by position, a dict by name, the rest is its input."""
        if isinstance(example, Inputs):
            return example
        if isinstance(example, Mapping):
            return cls(kwargs=dict(example))
        return cls(example if type(example) is tuple else (example,))

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Inputs:
        """The same with every tensor changed."""
        args, kwargs = tree_map_only(torch.Tensor, change, (self.args, dict(self.kwargs)))
        return Inputs(args, kwargs)

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor, in order."""
        leaves = tree_leaves((self.args, dict(self.kwargs)))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def to_run(self) -> Iterator[Inputs]:
        """Inputs with values, the first of which that the network takes is to be used.

        A tensor whose values are all equal, or aren't finite, gave only its shape.
        """
        tensors = self.tensors()
        generator = torch.Generator().manual_seed(SEED)

        def noise(like: torch.Tensor, *size: int) -> torch.Tensor:
            drawn = torch.randn(*like.shape[: like.ndim - len(size)], *size, generator=generator)
            return drawn.to(like.device, like.dtype)

        if len(tensors) == 1 and tensors[0].ndim == 4 and _is_blank(tensors[0]):
            yield self.map(lambda tensor: noise(tensor, *ODD_SIZE))
        yield self.map(lambda tensor: noise(tensor) if _is_blank(tensor) else tensor)

    def __str__(self) -> str:
        return ", ".join(map(str, map(_described, (*self.args, *self.kwargs.values()))))


def likely_inputs(model: nn.Module) -> list[Inputs]:
    """One image each, of shapes that the model says it takes, then of common ones; all zero."""
    dtype, device = _first_of(model)
    return [
        Inputs.of(torch.zeros(1, *shape, dtype=dtype, device=device))
        for shape in _likely_shapes(model)
    ]


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Without gradients, autocast or TF32; random generators are as before afterwards."""
    tensors = (*model.parameters(), *model.buffers())
    devices = {t.device.index for t in tensors if t.device.type == "cuda"}
    states = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.callback(random.setstate, states[0])
        stack.callback(np.random.set_state, states[1])
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast("cpu", enabled=False))
        if devices:
            stack.enter_context(torch.autocast("cuda", enabled=False))
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        # Not torch.manual_seed, which seeds devices that the network isn't on as well.
        torch.default_generator.manual_seed(SEED)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(SEED)
        yield


def _is_blank(tensor: torch.Tensor) -> bool:
    if not tensor.is_floating_point():
        return False
    if tensor.is_meta or tensor.numel() == 0:
        return True
    return not bool(tensor.isfinite().all()) or bool((tensor == tensor.flatten()[0]).all())


def _first_of(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """Dtype and device of the first convolution, else of the first floating parameter."""
    convs = (m.weight for m in model.modules() if isinstance(m, nn.Conv2d))
    floating = (p for p in (*convs, *model.parameters()) if p.is_floating_point())
    like = next(floating, torch.empty(0))
    return like.dtype, like.device


def _likely_shapes(model: nn.Module) -> list[tuple[int, int, int]]:
    """(C, H, W) that the model says it takes, then common ones."""
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    channels, *size = config.get("input_size", (3, 224, 224))
    first = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), channels)
    fixed = getattr(getattr(model, "patch_embed", None), "img_size", None)
    sizes = [tuple(fixed)] if isinstance(fixed, (tuple, list)) else []
    sizes += [tuple(size), (224, 224), (256, 256)]
    shapes = [(count, *size) for count in (channels, first, 3) for size in sizes]
    return list(dict.fromkeys(shapes))


def _described(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__
