"""TensorFlow's "same" border of timm's layers, in a form that exporters with free sizes follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import padding


def same_padding(size: int, kernel_size: int, stride: int, dilation: int) -> int:
    """Pixels that the "same" rule adds to an axis of `size`: ⌈size / stride⌉ windows fit then.

    timm rounds a quotient up; with a size that is a symbol, torch.export didn't come to an end
    with that in a quarter of an hour, and with a remainder in seconds.
    """
    window = (kernel_size - 1) * dilation + 1
    total = window - 1 - (size - 1) % stride
    return total if window >= stride else torch.sym_max(total, 0)


@contextmanager
def followable() -> Iterator[None]:
    """timm's layers pad by `same_padding` inside."""
    theirs = padding.get_same_padding
    padding.get_same_padding = same_padding
    try:
        yield
    finally:
        padding.get_same_padding = theirs
