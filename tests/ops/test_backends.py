"""Every backend of the fused filter against its definition, in value and in every gradient."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from aa_plugins.ops import adaptive_blur2d, backend_report, backends, eager, geometry
from aa_plugins.ops.reference import FilterInputs, blur_from_logits

# Largest deviation from the definition in float64, relative to the largest value (at least 1).
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 1e-5,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}
ROOT = Path(__file__).parents[2]
PAD_MODES = ("reflect", "replicate", "zeros", "circular")


@dataclass
class Case:
    """Random arguments of one call; gate and bank may be missing."""

    x: torch.Tensor
    logits: torch.Tensor
    gate: torch.Tensor | None
    bank: torch.Tensor | None
    stride: int
    pad_mode: str
    softmax: bool
    grad: torch.Tensor

    def tensors(self, dtype: torch.dtype | None = None) -> list[torch.Tensor | None]:
        found = (self.x, self.logits, self.gate, self.bank)
        return [None if t is None else t.to(dtype or t.dtype) for t in found]


def random_case(
    seed: int, size: int = 40, kernel_sizes: tuple[int, ...] = (2, 3, 4, 5, 6, 7)
) -> Case:
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)

    def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    dtype = draw.choice(list(TOLERANCE))
    accumulator = torch.promote_types(dtype, torch.float32)
    k, stride, groups = draw.choice(kernel_sizes), draw.randint(1, 4), draw.choice((1, 2, 3, 8))
    height, width = draw.randint(4, 4 + size // 2), draw.randint(4, 4 + size)
    if draw.random() < 0.2:  # too small to reflect
        height, width = draw.randint(1, 3), draw.randint(3, 4)
    channels = groups * draw.choice((1, 2, 5, 16, 20))
    bank = None
    if draw.random() < 0.4:
        bank = torch.rand(3, k * k, generator=generator).to(accumulator)
    members = k * k if bank is None else len(bank)
    kept = (-(-height // stride), -(-width // stride))
    x = normal(2, channels, height, width, dtype=dtype)
    layout = draw.choice(("contiguous", "channels_last", "transposed", "sliced"))
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        x = x.transpose(2, 3).contiguous().transpose(2, 3)
    elif layout == "sliced":
        x = torch.cat((x, x), 3)[..., :width]
    logits = normal(2, groups, members, *kept, dtype=draw.choice((dtype, accumulator)))
    if draw.random() < 0.4:
        logits = logits.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    gate = torch.rand(groups, generator=generator).to(accumulator) if draw.random() < 0.5 else None
    grad = normal(2, channels, *kept, dtype=dtype)
    softmax = draw.random() < 0.7
    return Case(x, logits, gate, bank, stride, draw.choice(PAD_MODES), softmax, grad)


def expected(case: Case) -> list[torch.Tensor]:
    """Output and gradients of x, logits and gate by the definition, in float64."""
    x, logits, gate, bank = case.tensors(torch.float64)
    leaves = [t.detach().requires_grad_() for t in (x, logits, gate) if t is not None]
    options = (bank, case.stride, case.pad_mode, case.softmax)
    y = blur_from_logits(FilterInputs(*leaves[:2], None if gate is None else leaves[2], *options))
    return [y.detach(), *torch.autograd.grad(y, leaves, case.grad.double())]


def assert_close(found: list[torch.Tensor], case: Case, what: str) -> None:
    names = ("output", "grad of x", "grad of logits", "grad of gate")
    for name, value, oracle in zip(names, found, expected(case)):
        assert value.shape == oracle.shape
        error = (value.double() - oracle).abs().max() / oracle.abs().max().clamp(min=1)
        assert error <= TOLERANCE[case.x.dtype], f"{what}, {name}: {error:.2e} off, {case.x.dtype}"


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Uninitialised memory is NaN, so that whatever a backend leaves out shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


def check(backend: str, case: Case, what: str) -> None:
    x, logits, gate, bank = case.tensors()
    leaves = [t.detach().requires_grad_() for t in (x, logits, gate) if t is not None]
    y = adaptive_blur2d(
        *leaves[:2], case.stride, case.pad_mode, softmax=case.softmax, bank=bank,
        gate=None if gate is None else leaves[2], backend=backend,
    )  # fmt: skip
    assert y.dtype == x.dtype
    found = [y.detach(), *torch.autograd.grad(y, leaves, case.grad)]
    assert_close(found, case, f"{backend}, {what}")


@pytest.mark.parametrize("seed", range(24))
def test_backend_equals_definition(seed: int, poisoned: None) -> None:
    check("eager", random_case(seed), f"seed {seed}")


@pytest.mark.parametrize("values", [1, 600])  # each group by itself, or a few at a time
@pytest.mark.parametrize("seed", range(6))
def test_large_images_by_parts(
    seed: int, values: int, poisoned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geometry, "LARGE", 1)
    monkeypatch.setattr(eager, "LARGE", values)
    check("eager", random_case(seed), f"seed {seed}, parts of {values}")


@pytest.mark.slow
def test_backend_equals_definition_on_many_shapes(poisoned: None) -> None:
    for seed in range(1000, 1400):
        check("eager", random_case(seed), f"seed {seed}")


def check_triton(seeds: range, size: int, kernel_sizes: tuple[int, ...]) -> None:
    """The Triton backend on the CPU, in small blocks; for a process with TRITON_INTERPRET=1."""
    from aa_plugins.ops import triton_blur

    triton_blur.PIXELS, triton_blur.CHANNELS = 32, 8
    torch.use_deterministic_algorithms(True)
    for seed in seeds:
        case = random_case(seed, size, kernel_sizes)
        x, logits, gate, bank = case.tensors()
        assert triton_blur.unavailable(x) is None
        inputs = FilterInputs(x, logits, gate, bank, case.stride, case.pad_mode, case.softmax)
        found = [triton_blur.forward(inputs)]
        found += triton_blur.backward(case.grad, inputs, (True, True))
        assert_close([t for t in found if t is not None], case, f"triton, seed {seed}")


def interpret_triton(arguments: str, file: str = __file__) -> None:
    """Call `check_triton` of a file in a new process: Triton reads the variable on import."""
    pytest.importorskip("triton")
    code = f"import runpy; runpy.run_path({file!r})['check_triton']({arguments})"
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def test_triton_equals_definition() -> None:
    interpret_triton("range(4), 6, (2, 3)")


@pytest.mark.slow
def test_triton_equals_definition_on_many_shapes() -> None:
    interpret_triton("range(100, 130), 10, (2, 3, 4, 5, 6, 7)")


@pytest.mark.parametrize("borders", [("reflect", "circular"), ("replicate", "zeros")])
def test_triton_kernels_compile_for_a_gpu(borders: tuple[str, str], tmp_path: Path) -> None:
    """No GPU is needed for that, and the interpreter accepts what the compiler doesn't."""
    pytest.importorskip("triton")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)}
    code = f"import runpy; runpy.run_path({__file__!r})['compile_triton']{borders!r}"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]


def compile_triton(rows: str, columns: str) -> None:
    """Compile every kernel to PTX; for a process of its own."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from aa_plugins.ops import triton_blur

    shared = {"ROWS": rows, "COLUMNS": columns, "KERNEL": 2, "STRIDE": 2}
    shared |= {"ACCUMULATOR": triton.language.float32, "PIXELS": 32, "CHANNELS": 8}
    slots = {"ROW_SLOTS": triton_blur._slots(9, 2, rows)}
    slots["COLUMN_SLOTS"] = triton_blur._slots(1, 2, columns)
    weights = {"MEMBERS": 2, "SOFTMAX": True, "BANK": rows == "reflect", "GATE": True}
    pointers = {"x", "y", "logits", "gate", "bank", "grad", "taps", "grad_x", "grad_taps"}
    for kernel, options in (
        (triton_blur._forward_kernel, shared | weights),
        (triton_blur._taps_backward_kernel, shared),
        (triton_blur._input_backward_kernel, shared | slots),
    ):
        kinds = {n: "*fp32" if n in pointers else "i32" for n in kernel.arg_names}
        signature = kinds | dict.fromkeys(options, "constexpr")
        source = ASTSource(fn=kernel, signature=signature, constexprs=options)
        assert triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]


def test_gradient_of_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(1, 2, 9, 2, 2, generator=generator, dtype=torch.float64)
    gate = torch.rand(2, generator=generator, dtype=torch.float64, requires_grad=True)
    logits.requires_grad_()

    def blur(x: torch.Tensor, logits: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return adaptive_blur2d(x, logits, 2, softmax=True, gate=gate, backend="eager")

    assert torch.autograd.gradcheck(blur, (x, logits, gate))
    assert torch.autograd.gradgradcheck(blur, (x, logits, gate))


def test_only_wanted_gradients_are_computed() -> None:
    x, taps = torch.randn(1, 4, 5, 6), torch.rand(1, 2, 9, 3, 3)
    for backend in (b for b, state in backend_report(x).items() if state == "available"):
        for wanted in ((True, False), (False, True)):
            module = backends.choose_backend(x, backend)
            grad = torch.ones(1, 4, 3, 3)
            inputs = FilterInputs(x, taps, None, None, 2, "zeros", False)
            found = module.backward(grad, inputs, wanted)
            assert [found[0] is not None, found[1] is not None, found[2]] == [*wanted, None]


def test_memory_format_is_kept() -> None:
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = adaptive_blur2d(x, torch.rand(2, 2, 9, 3, 3), backend="eager")
    y.sum().backward()
    for tensor in (y, x.grad):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_operator_is_registered_completely() -> None:
    x = torch.randn(2, 4, 6, 7, requires_grad=True)
    logits, gate = torch.randn(2, 2, 9, 3, 4, requires_grad=True), torch.rand(2, requires_grad=True)
    arguments = (x, logits, gate, None, 2, "reflect", True, "")
    torch.library.opcheck(torch.ops.aa_plugins.fused_blur2d.default, arguments)


class Blur(torch.nn.Module):
    def __init__(self, backend: str | None = None) -> None:
        super().__init__()
        self.backend = backend

    def forward(self, x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return adaptive_blur2d(x, logits, 2, softmax=True, backend=self.backend)


def operators_of(module: torch.nn.Module, *arguments: torch.Tensor) -> set[str]:
    graph = torch.export.export(module, arguments).graph
    return {str(node.target).split(".")[0] for node in graph.nodes if node.op == "call_function"}


def test_the_compiler_sees_one_node_and_the_exporter_standard_operators() -> None:
    x, logits = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 9, 3, 4)
    assert operators_of(Blur(), x, logits) == {"aten"}
    assert operators_of(Blur("eager"), x, logits) == {"aa_plugins"}  # asked for
    compiled = torch.compile(Blur(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, logits), Blur()(x, logits))


def test_backend_by_argument_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    x, taps = torch.randn(1, 2, 4, 4), torch.rand(1, 1, 9, 2, 2)
    assert backends.choose_backend(x, "eager") is eager
    with pytest.raises(ValueError, match="backend='cuda' is unknown.*eager"):
        adaptive_blur2d(x, taps, backend="cuda")
    monkeypatch.setenv("AA_PLUGINS_BACKEND", "triton")
    with pytest.raises(ValueError, match="'triton' can't run.*AA_PLUGINS_BACKEND"):
        adaptive_blur2d(x, taps)
    monkeypatch.setenv("AA_PLUGINS_BACKEND", "reference")
    expected = adaptive_blur2d(x, taps, backend="eager")
    torch.testing.assert_close(adaptive_blur2d(x, taps), expected)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"taps": torch.rand(1, 1, 9, 4, 4)}, "do not fit"),
        ({"taps": torch.rand(1, 1, 8, 2, 2)}, "8 taps are not k²"),
        ({"bank": torch.rand(2, 9)}, "mixed by 9 weights"),
        ({"gate": torch.rand(3)}, "expected one value a group, 1"),
    ],
)
def test_wrong_shapes_are_named(change: dict, message: str) -> None:
    arguments = {"x": torch.rand(1, 2, 4, 4), "taps": torch.rand(1, 1, 9, 2, 2)} | change
    with pytest.raises(ValueError, match=message):
        adaptive_blur2d(**arguments)
