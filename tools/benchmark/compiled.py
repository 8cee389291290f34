"""What torch's own compilers make of converted networks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from aa_plugins.export import exportable
from aa_plugins.layers import fuse
from benchmark.runtimes import VARIANTS, Rows, converted, rows_over_plain

Task = Callable[[], Any]

NETWORKS = ("resnet50", "tf_efficientnet_lite0")
TOLERANCE = 1e-3  # of the largest score, to the network as it is


def compiled_suite(rounds: int, device: str) -> Iterator[Rows]:
    """Inference on the CPU at 224×224, batch 1, filters' norms folded. It needs a C++ compiler.

    Args:
        device: "cpu", as the command says before.

    Raises:
        ArithmeticError: where a compiled network computes something else.
    """
    # Compiled code is kept by a function's code, which all networks of a class share.
    torch._dynamo.config.recompile_limit = len(VARIANTS) * len(COMPILERS)
    for name in NETWORKS:
        plain, x = timm.create_model(name).eval(), torch.randn(1, 3, 224, 224)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            tasks: dict[tuple[str, str], Task] = {}
            for variant, config in VARIANTS.items():
                model = converted(plain, config)
                fuse(model)
                tasks["torch", variant] = partial(model, x)
                expected = model(x)
                for compiler, build in COMPILERS.items():
                    task = build(model, x, Path(folder) / f"{compiler}-{len(tasks)}.pt2")
                    off = (task() - expected).abs().max() / expected.abs().max()
                    if off > TOLERANCE:
                        raise ArithmeticError(f"{name}, {variant}: {compiler} is off by {off:.1e}")
                    tasks[compiler, variant] = task
            yield rows_over_plain(f"{name}, 224×224", tasks, {}, rounds)


def _by_mode(mode: str) -> Callable[[nn.Module, torch.Tensor, Path], Task]:
    def build(model: nn.Module, x: torch.Tensor, package: Path) -> Task:
        program = torch.compile(model, mode=mode, dynamic=False)
        return partial(program, x)

    return build


def _ahead_of_time(model: nn.Module, x: torch.Tensor, package: Path) -> Task:
    exported = torch.export.export(exportable(model), (x,))
    torch._inductor.aoti_compile_and_package(exported, package_path=str(package))
    program = torch._inductor.aoti_load_package(str(package))
    return partial(program, x)


COMPILERS: dict[str, Callable[[nn.Module, torch.Tensor, Path], Task]] = {
    "torch.compile": _by_mode("default"),
    "torch.compile, max-autotune": _by_mode("max-autotune"),
    "AOTInductor": _ahead_of_time,
}
