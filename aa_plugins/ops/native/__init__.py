"""The fused filter on CPUs, compiled from C++ at first use where there is a compiler."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch

from aa_plugins.ops.geometry import kernel_size_of, memory_format_of, source_index

Gradients = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]

DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
SOURCES = Path(__file__).parent
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math"]
# What PyTorch found the processor to have, in the compiler's words.
PROCESSORS = {
    "AVX512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    "AVX2": ["-march=x86-64-v3"],
}
log = logging.getLogger(__name__)


class Problem(ctypes.Structure):
    """The struct of this name in taps.h."""

    _sizes = (
        *("batch", "channels", "height", "width", "groups", "members"),
        *("out_height", "out_width", "kernel", "stride"),
    )
    _options = ("dtype", "channels_last", "softmax", "threads")
    _pointers = (
        *("x", "logits", "gate", "bank", "rows", "columns", "y"),
        *("grad_y", "grad_x", "grad_logits", "grad_gate"),
    )
    _fields_ = [
        *((name, ctypes.c_int64) for name in _sizes),
        ("logit_strides", ctypes.c_int64 * 5),
        ("grad_logit_strides", ctypes.c_int64 * 5),
        *((name, ctypes.c_int64) for name in _options),
        *((name, ctypes.c_void_p) for name in _pointers),
    ]


def unavailable(x: torch.Tensor) -> str | None:
    """Why this backend can't run on `x`, or None; compiles the library where it wasn't yet."""
    if x.device.type != "cpu":
        return f"x is on {x.device}, not on the CPU"
    if x.dtype not in DTYPES:
        return f"x is {x.dtype}"
    library = load()
    return library if isinstance(library, str) else None


def forward(
    x: torch.Tensor,
    logits: torch.Tensor,
    gate: torch.Tensor | None,
    bank: torch.Tensor | None,
    stride: int,
    pad_mode: str,
    softmax: bool,
) -> torch.Tensor:
    """(N, C, H, W) and (N, G, L, H', W') → (N, C, H', W'), as `reference.blur_from_logits`."""
    x, (logits, gate, bank) = _dense(x), _accumulated(x, logits, gate, bank)
    shape = (*x.shape[:2], *logits.shape[-2:])
    y = torch.empty(shape, dtype=x.dtype, memory_format=memory_format_of(x))
    _run("aa_forward", x, logits, gate, bank, stride, pad_mode, softmax, y=y)
    return y


def backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    logits: torch.Tensor,
    gate: torch.Tensor | None,
    bank: torch.Tensor | None,
    stride: int,
    pad_mode: str,
    softmax: bool,
    wanted: tuple[bool, bool],
) -> Gradients:
    """Gradients of x, logits and gate; `wanted` says whether x's, and whether the others'."""
    dtypes = [None if t is None else t.dtype for t in (x, logits, gate)]
    x, (logits, gate, bank) = _dense(x), _accumulated(x, logits, gate, bank)
    grad_y = grad.to(x.dtype).contiguous(memory_format=memory_format_of(x))
    grad_x = torch.zeros_like(x, dtype=logits.dtype) if wanted[0] else None
    grad_logits = torch.empty_like(logits) if wanted[1] else None
    share = gate is not None and wanted[1]
    grad_gate = logits.new_empty(logits.shape[:2]) if share else None
    outputs = dict(grad_y=grad_y, grad_x=grad_x, grad_logits=grad_logits, grad_gate=grad_gate)
    _run("aa_backward", x, logits, gate, bank, stride, pad_mode, softmax, **outputs)
    grads = (grad_x, grad_logits, grad_gate.sum(0) if share else None)
    return tuple(g if g is None else g.to(d) for g, d in zip(grads, dtypes))


def _dense(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=memory_format_of(x))


def _accumulated(x: torch.Tensor, *tensors: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    """What is small, in the dtype the sums are taken in; gate and bank contiguous."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    logits, *others = (None if t is None else t.to(dtype) for t in tensors)
    return logits, *(None if t is None else t.contiguous() for t in others)


def _run(
    function: str,
    x: torch.Tensor,
    logits: torch.Tensor,
    gate: torch.Tensor | None,
    bank: torch.Tensor | None,
    stride: int,
    pad_mode: str,
    softmax: bool,
    **outputs: torch.Tensor | None,
) -> None:
    area = logits.shape[2] if bank is None else bank.shape[1]
    kernel_size = kernel_size_of(area)
    rows, columns = (source_index(size, kernel_size, pad_mode) for size in x.shape[-2:])
    inputs = dict(x=x, logits=logits, gate=gate, bank=bank, rows=rows, columns=columns)
    pointers = {
        name: None if tensor is None else tensor.data_ptr()
        for name, tensor in (inputs | outputs).items()
    }
    grad_logits = outputs.get("grad_logits")
    problem = Problem(
        *x.shape,
        *logits.shape[1:],
        kernel_size,
        stride,
        logit_strides=logits.stride(),
        grad_logit_strides=(0,) * 5 if grad_logits is None else grad_logits.stride(),
        dtype=DTYPES[x.dtype],
        channels_last=memory_format_of(x) == torch.channels_last,
        softmax=softmax,
        threads=torch.get_num_threads(),
        **pointers,
    )
    getattr(load(), function)(ctypes.byref(problem))


@lru_cache(maxsize=1)
def load() -> ctypes.CDLL | str:
    """The compiled library, or why there is none; says so once."""
    try:
        return ctypes.CDLL(str(_compiled()))
    except (OSError, RuntimeError) as error:
        log.warning("the CPU kernel can't be compiled, plain torch takes its place: %s", error)
        return str(error)


def _compiled() -> Path:
    """The library in the user's cache, compiled where its sources, compiler or processor changed.

    Raises:
        RuntimeError: without a compiler that can build it.
    """
    wanted = os.environ.get("CXX", "c++")
    compiler = shutil.which(wanted)
    if compiler is None:
        raise RuntimeError(f"no C++ compiler: {wanted!r} not found (set CXX)")
    flags = FLAGS + PROCESSORS.get(torch.backends.cpu.get_cpu_capability(), [])
    key = hashlib.sha256(" ".join([compiler, platform.machine(), *flags]).encode())
    for source in sorted(SOURCES.glob("*.[ch]*")):
        key.update(source.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aa_plugins"
    library = cache / f"adaptive_blur-{key.hexdigest()[:16]}.so"
    if library.exists():
        return library
    log.info("compiling the CPU kernel into %s", library)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        built = Path(folder) / library.name
        command = [compiler, *flags, str(SOURCES / "adaptive_blur.cpp"), "-o", str(built)]
        # OpenMP shares the threads; a compiler without it builds a library for one.
        results = [subprocess.run([*command, "-fopenmp"], capture_output=True, text=True)]
        if results[0].returncode:
            results.append(subprocess.run(command, capture_output=True, text=True))
        if results[-1].returncode:
            raise RuntimeError(f"{compiler} failed: {results[-1].stderr.strip()[-500:]}")
        built.replace(library)  # at once, so that no other process finds half of it
    return library
