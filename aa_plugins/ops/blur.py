"""Public filter functions: argument checks, padding, and the choice of a backend."""

from __future__ import annotations

from math import comb

import torch
import torch.nn.functional as F

from aa_plugins.ops.backends import check_backend
from aa_plugins.ops.fused import fused_blur2d
from aa_plugins.ops.geometry import is_exported, out_size, pad2d
from aa_plugins.ops.reference import FilterInputs, blur_from_logits


def binomial_taps(kernel_size: int) -> torch.Tensor:
    """Binomial coefficients of `kernel_size` taps, (k,) float32, summing to 1."""
    coefficients = [comb(kernel_size - 1, i) for i in range(kernel_size)]
    return torch.tensor(coefficients, dtype=torch.float32) / 2 ** (kernel_size - 1)


def blur2d(x: torch.Tensor, taps: torch.Tensor, stride: int, pad_mode: str) -> torch.Tensor:
    """Filter every channel with one fixed k×k kernel and subsample.

    Args:
        x: (N, C, H, W).
        taps: (k, k), summing to 1.

    Returns:
        (N, C, ⌈H/stride⌉, ⌈W/stride⌉).
    """
    channels, kernel_size = x.shape[1], taps.shape[-1]
    if torch.jit.is_tracing():  # the exporter of TorchScript needs to know the kernel's shape
        channels, kernel_size = int(channels), int(kernel_size)
    weight = taps.to(x.dtype).expand(channels, 1, kernel_size, kernel_size)
    return F.conv2d(pad2d(x, kernel_size, pad_mode), weight, stride=stride, groups=channels)


def adaptive_blur2d(
    x: torch.Tensor,
    taps: torch.Tensor,
    stride: int = 2,
    pad_mode: str = "reflect",
    *,
    softmax: bool = False,
    bank: torch.Tensor | None = None,
    gate: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Filter every kept position with its own taps, shared by a group of channels.

    What stands between a predictor and its taps can be left to this function, which does it in
    the same pass: the softmax, the mixture of a bank, and the gate.

    Args:
        x: (N, C, H, W).
        taps: (N, G, k², ⌈H/stride⌉, ⌈W/stride⌉) weights in row-major order over the window; G
            divides C, channel c belongs to group c // (C / G). With `bank`, (N, G, L, …).
        softmax: take the softmax of `taps` over the third axis first.
        bank: (L, k²) kernels, of which the taps are then the mixture; a constant, without gradient.
        gate: (G,) in [0, 1]: the share of the taps, the rest being a unit impulse at the central
            tap ⌊k²/2⌋.
        backend: "triton", "eager" or "reference"; by default what the environment
            variable AA_PLUGINS_BACKEND says, or else the first that can run. What is exported
            is the definition then, in standard operators.

    Returns:
        (N, C, ⌈H/stride⌉, ⌈W/stride⌉) in the dtype and memory format of `x`; sums are float32.

    Raises:
        ValueError: where the shapes do not fit, or the backend can't run.
    """
    n, channels, height, width = x.shape
    groups, members = taps.shape[1:3]
    expected = (n, groups, members, out_size(height, stride), out_size(width, stride))
    if tuple(taps.shape) != expected or channels % groups:
        raise ValueError(
            f"taps of shape {tuple(taps.shape)} do not fit x of shape {tuple(x.shape)} at "
            f"stride {stride}: expected {expected} with groups dividing {channels} channels"
        )
    _check_area(taps, bank)
    if gate is not None and tuple(gate.shape) != (groups,):
        raise ValueError(f"gate of shape {tuple(gate.shape)}: expected one value a group, {groups}")
    backend = check_backend(backend)
    inputs = FilterInputs(x, taps, gate, bank, stride, pad_mode, softmax)
    if backend == "reference" or (is_exported() and not backend):
        return blur_from_logits(inputs)
    return fused_blur2d(*inputs, backend)


def _check_area(taps: torch.Tensor, bank: torch.Tensor | None) -> None:
    """Raise ValueError unless k² taps, k from 1 to 7, are given or mixed."""
    members = taps.shape[2]
    area = members if bank is None else bank.shape[1]
    if bank is not None and len(bank) != members:
        raise ValueError(f"bank of shape {tuple(bank.shape)} is mixed by {members} weights")
    if area not in [k * k for k in range(1, 8)]:
        raise ValueError(f"{area} taps are not k² with k from 1 to 7")
