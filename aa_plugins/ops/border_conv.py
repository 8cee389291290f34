"""A convolution that pads by ⌊k/2⌋, whose gradient is fast on CPUs and keeps no padded copy."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from aa_plugins.ops.geometry import fold_border, memory_format_of, pad2d

LARGE = 2**20  # values of one image


def border_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int,
    pad_mode: str,
    groups: int = 1,
) -> torch.Tensor:
    """`conv2d` of `pad2d(x)`: (N, C, H, W) → (N, C', ⌈H/stride⌉, ⌈W/stride⌉).

    Args:
        weight: (C', C / groups, k, k), k odd.
    """
    if _gradient_is_slow(x, weight, bias, groups):
        return _BorderConv.apply(x, weight, stride, pad_mode)
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
        padded = pad2d(x, weight.shape[-1], pad_mode)
        return F.conv2d(padded, weight, bias, stride, groups=groups)
    return _by_image(x, weight, bias, stride, pad_mode, groups)


def _by_image(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int,
    pad_mode: str,
    groups: int = 1,
) -> torch.Tensor:
    # Where the copies of a large batch leave the cache and, fresh from the system, cost page
    # faults, those of one image after the other reuse their memory.
    images = x.split(1) if x[:1].numel() >= LARGE else (x,)
    padded = (pad2d(image, weight.shape[-1], pad_mode) for image in images)
    found = [F.conv2d(image, weight, bias, stride, groups=groups) for image in padded]
    return found[0] if len(found) == 1 else torch.cat(found)


def _gradient_is_slow(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, groups: int
) -> bool:
    # On CPUs, PyTorch takes most of the time of a strided convolution's gradient (channels first)
    # to transpose it element by element.
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and bias is None
        and groups == 1
        and torch.is_grad_enabled()
        and x.requires_grad
        and memory_format_of(x) == torch.contiguous_format
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class _BorderConv(torch.autograd.Function):
    """Takes the gradient of the input channels-last and transposes it by blocks."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: int, pad_mode: str
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.pad_mode = stride, pad_mode
        return _by_image(x, weight, None, stride, pad_mode)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = None, None
        if ctx.needs_input_grad[0]:
            last = {"memory_format": torch.channels_last}
            size = [x.shape[0], x.shape[1], *(s + weight.shape[-1] - 1 for s in x.shape[-2:])]
            unread = torch.empty(size, dtype=x.dtype, **last)
            tensors = (grad.contiguous(**last), unread, weight.contiguous(**last))
            transposed = _convolution_backward(*tensors, ctx.stride, (True, False, False))[0]
            grad_x = torch.empty(size, dtype=x.dtype)
            for n in range(len(x)):
                # Matrices are transposed by blocks, tensors of more axes are not.
                pixels = transposed[n].permute(1, 2, 0).flatten(0, 1)
                grad_x[n].flatten(1).copy_(pixels.t())
            grad_x = fold_border(grad_x, weight.shape[-1], ctx.pad_mode)
        if ctx.needs_input_grad[1]:
            padded = pad2d(x, weight.shape[-1], ctx.pad_mode)
            tensors = (grad, padded, weight)
            grad_weight = _convolution_backward(*tensors, ctx.stride, (False, True, False))[1]
        return grad_x, grad_weight, None, None


def _convolution_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: int,
    wanted: tuple[bool, bool, bool],
) -> tuple[torch.Tensor | None, ...]:
    settings = ([stride, stride], [0, 0], [1, 1], False, [0, 0], 1)
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *settings, wanted)
