"""The fused operator as torch sees it: registered completely, with the strides it promises."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from aa_plugins.ops import adaptive_blur2d
from aa_plugins.ops.reference import FilterInputs
from tests.ops.test_backends import Case, interpret_triton, poisoned, random_case  # noqa: F401

FORWARD = torch.ops.aa_plugins.fused_blur2d.default
BACKWARD = torch.ops.aa_plugins.fused_blur2d_backward.default
SCHEMA_AND_STRIDES = ("test_schema", "test_faketensor")
EVERYTHING = (*SCHEMA_AND_STRIDES, "test_autograd_registration", "test_aot_dispatch_dynamic")


def arguments_of(case: Case, backend: str, grad: bool = False) -> tuple:
    tensors = [t if t is None else t.detach() for t in case.tensors()]
    tensors = [t.requires_grad_(grad) if t is not None and i < 3 else t
               for i, t in enumerate(tensors)]  # fmt: skip
    return *FilterInputs(*tensors, case.stride, case.pad_mode, case.softmax), backend


def check(case: Case, backend: str, utils: tuple[str, ...]) -> None:
    torch.library.opcheck(FORWARD, arguments_of(case, backend), test_utils=utils)
    for wanted in ((True, True), (True, False), (False, True)):
        arguments = (case.grad, *arguments_of(case, backend), *wanted)
        torch.library.opcheck(BACKWARD, arguments, test_utils=utils)


@pytest.mark.parametrize("seed", range(20, 32))
def test_fake_tensors_have_the_strides_of_real_ones(seed: int, poisoned: None) -> None:  # noqa: F811
    check(random_case(seed, size=8), "eager", SCHEMA_AND_STRIDES)


@pytest.mark.slow
def test_everything_of_many_cases(poisoned: None) -> None:  # noqa: F811
    for seed in range(2000, 2060):
        case = random_case(seed, size=8)
        check(case, "eager", SCHEMA_AND_STRIDES)
        if seed % 4 == 0 and case.x.dtype in (torch.float32, torch.float64):
            arguments = arguments_of(case, "eager", grad=True)
            torch.library.opcheck(FORWARD, arguments, test_utils=EVERYTHING)


def check_triton(seeds: range) -> None:
    """For a process with TRITON_INTERPRET=1."""
    for seed in seeds:
        check(random_case(seed, 4, (2, 3)), "triton", SCHEMA_AND_STRIDES)


@pytest.mark.slow
def test_triton_has_the_strides_of_fake_tensors() -> None:
    interpret_triton("range(6)", __file__)


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "sliced"])
def test_compiled_training_in_any_layout(layout: str) -> None:
    torch._dynamo.reset()
    x, logits = torch.randn(2, 8, 6, 8), torch.randn(2, 2, 9, 3, 4)
    logits = logits.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        x = x.transpose(2, 3).contiguous().transpose(2, 3)
    else:
        x = torch.cat((x, x), 3)[..., :8]

    def blur(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return adaptive_blur2d(x, logits, 2, softmax=True).sin()

    compiled = torch.compile(blur, fullgraph=True, backend="aot_eager")
    gradients = []
    for function in (blur, compiled):
        leaves = [t.detach().requires_grad_() for t in (x, logits)]
        gradients.append(torch.autograd.grad(function(*leaves).sum(), leaves))
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("pad_mode", ["reflect", "circular"])
def test_fake_tensors_leave_nothing_behind(pad_mode: str) -> None:
    """Sizes that only fake tensors have met before: real ones find nothing of theirs."""
    x, taps = torch.randn(1, 2, 2, 13), torch.rand(1, 1, 49, 1, 7)
    with FakeTensorMode() as mode:
        adaptive_blur2d(mode.from_tensor(x), mode.from_tensor(taps), 2, pad_mode)
        adaptive_blur2d(
            mode.from_tensor(x), mode.from_tensor(taps), 2, pad_mode, backend="reference"
        )
    with torch.inference_mode():
        adaptive_blur2d(x, taps, 2, pad_mode)
    x.requires_grad_()
    found = adaptive_blur2d(x, taps, 2, pad_mode)
    expected = adaptive_blur2d(x, taps, 2, pad_mode, backend="reference")
    torch.testing.assert_close(found, expected)
    (a,), (b,) = (torch.autograd.grad(y.sum(), x) for y in (found, expected))
    torch.testing.assert_close(a, b)
