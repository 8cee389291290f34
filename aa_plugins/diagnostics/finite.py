"""A detector drops boxes that aren't finite: what diverged looks like images without objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@contextmanager
def finite(model: nn.Module, name_of: Callable[[Any], str]) -> Iterator[None]:
    """Inside the context, `model` raises where its maps or heads give a value that isn't finite.

    Looked at are what its `backbone` gives, and every convolution and linear layer outside of it;
    once for each forward pass of the model, so that a GPU is waited for once.

    Args:
        model: a detector, the whole network of which is its backbone where it has none.
        name_of: from the model's input to the names of its images, for the message.

    Raises:
        ValueError: in the forward pass, naming the images and the first part that isn't finite.
    """
    seen: list[tuple[str, torch.Tensor]] = []

    def look(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen.extend((name, torch.isfinite(value).all()) for value in _floats(output))

        return hook

    def judge(_module: nn.Module, inputs: tuple[Any, ...], _output: Any) -> None:
        if seen and not torch.stack([flag for _, flag in seen]).all():
            part = next(name for name, flag in seen if not flag)
            raise ValueError(
                f"{name_of(inputs[0])}: {part} gives values that aren't finite: look at the "
                "weights (did their training diverge?) and at the precision"
            )

    backbone = getattr(model, "backbone", None)
    inside = set() if backbone is None else set(backbone.modules())
    parts = [(n, m) for n, m in model.named_modules() if isinstance(m, LAYERS) and m not in inside]
    if backbone is not None:
        parts.append(("backbone", backbone))
    handles = [module.register_forward_hook(look(name)) for name, module in parts]
    handles.append(model.register_forward_pre_hook(lambda *_: seen.clear()))
    handles.append(model.register_forward_hook(judge))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _floats(output: Any) -> Iterator[torch.Tensor]:
    """Tensors of real numbers in an output of nested lists and dicts."""
    if isinstance(output, torch.Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _floats(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from _floats(value)
