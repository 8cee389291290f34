"""The fused filter as one node for autograd and compilers."""

from __future__ import annotations

from typing import Any

import torch

from aa_plugins.ops.backends import choose_backend
from aa_plugins.ops.geometry import laid_out_as, memory_format_of
from aa_plugins.ops.reference import FilterInputs, blur_from_logits


@torch.library.custom_op("aa_plugins::fused_blur2d", mutates_args=())
def fused_blur2d(
    x: torch.Tensor,
    logits: torch.Tensor,
    gate: torch.Tensor | None,
    bank: torch.Tensor | None,
    stride: int,
    pad_mode: str,
    softmax: bool,
    backend: str,
) -> torch.Tensor:
    """`reference.blur_from_logits` in one pass; the output has the memory format of `x`."""
    inputs = FilterInputs(x, logits, gate, bank, stride, pad_mode, softmax)
    return laid_out_as(_output_of(x, logits, "meta"), choose_backend(x, backend).forward(inputs))


@torch.library.custom_op("aa_plugins::fused_blur2d_backward", mutates_args=())
def fused_blur2d_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    logits: torch.Tensor,
    gate: torch.Tensor | None,
    bank: torch.Tensor | None,
    stride: int,
    pad_mode: str,
    softmax: bool,
    backend: str,
    wants_x: bool,
    wants_logits: bool,
) -> list[torch.Tensor]:
    """Gradients of x, logits and gate, laid out as these; an empty tensor where none is wanted."""
    inputs = FilterInputs(x, logits, gate, bank, stride, pad_mode, softmax)
    run = choose_backend(x, backend).backward
    found = run(grad, inputs, (wants_x, wants_logits))
    shapes = _gradients_of(x, logits, gate, wants_x, wants_logits, "meta")
    return [x.new_empty(0) if g is None else laid_out_as(like, g) for like, g in zip(shapes, found)]


@fused_blur2d.register_fake
def _(x, logits, gate, bank, stride, pad_mode, softmax, backend):
    return _output_of(x, logits, x.device)


@fused_blur2d_backward.register_fake
def _(grad, x, logits, gate, bank, stride, pad_mode, softmax, backend, wants_x, wants_logits):
    return _gradients_of(x, logits, gate, wants_x, wants_logits, x.device)


def _output_of(x: torch.Tensor, logits: torch.Tensor, device: Any) -> torch.Tensor:
    """An empty tensor of the output's shape and strides."""
    shape = (*x.shape[:2], *logits.shape[-2:])
    return torch.empty(shape, dtype=x.dtype, device=device, memory_format=memory_format_of(x))


def _gradients_of(
    x: torch.Tensor,
    logits: torch.Tensor,
    gate: torch.Tensor | None,
    wants_x: bool,
    wants_logits: bool,
    device: Any,
) -> list[torch.Tensor]:
    """Empty tensors of the gradients' shapes and strides; of no size where none is wanted."""
    unwanted = torch.empty(0, dtype=x.dtype, device=device)
    wants_gate = wants_logits and gate is not None
    return [
        torch.empty_like(x, device=device, memory_format=memory_format_of(x))
        if wants_x
        else unwanted,
        torch.empty_like(logits, device=device) if wants_logits else unwanted.clone(),
        torch.empty_like(gate, device=device) if wants_gate else unwanted.clone(),
    ]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:]


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    wants_x, wants_logits = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:3])
    tensors = ctx.saved_tensors
    grads = fused_blur2d_backward(grad, *tensors, *ctx.options, wants_x, wants_logits)
    return *(g if g.numel() else None for g in grads), *(None,) * (1 + len(ctx.options))


fused_blur2d.register_autograd(_backward, setup_context=_setup)


def _setup_double(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.options = inputs[5:]


def _double_backward(ctx: Any, grads: list[torch.Tensor | None]) -> tuple[Any, ...]:
    """The gradient of the gradient, from the definition: rare, so it needs no kernel."""
    grad, x, logits, gate, bank = ctx.saved_tensors
    stride, pad_mode, softmax, _, wants_x, wants_logits = ctx.options
    with torch.enable_grad():
        upstream = grad.detach().requires_grad_()
        variables = [t if t is None else t.detach().requires_grad_() for t in (x, logits, gate)]
        y = blur_from_logits(FilterInputs(*variables, bank, stride, pad_mode, softmax))
        wanted = (wants_x, wants_logits, wants_logits)
        used = [(v, g) for v, g, w in zip(variables, grads, wanted) if w and None not in (v, g)]
        first = torch.autograd.grad(y, [v for v, _ in used], upstream, create_graph=True)
        targets = [upstream, *(v for v in variables if v is not None)]
        second = torch.autograd.grad(first, targets, [g for _, g in used], allow_unused=True)
    results = iter(second)
    found = [None if v is None else next(results) for v in (upstream, *variables)]
    return *found, *(None,) * (1 + len(ctx.options))


fused_blur2d_backward.register_autograd(_double_backward, setup_context=_setup_double)
