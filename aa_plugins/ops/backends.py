"""Which implementation of the fused filter runs, and why the others don't."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import torch

# In order of preference. Each module has `unavailable(x)`, `forward(inputs)` and
# `backward(grad, inputs, wanted)` of `FilterInputs`; "reference" is the definition, differentiated
# by autograd and visible to compilers and exporters.
BACKENDS = {
    "triton": "aa_plugins.ops.triton_blur",
    "eager": "aa_plugins.ops.eager",
}
VARIABLE = "AA_PLUGINS_BACKEND"


def backend_report(x: torch.Tensor) -> dict[str, str]:
    """For every backend "available", or the reason why it can't run on `x`."""
    return {name: _unavailable(name, x) or "available" for name in BACKENDS}


def check_backend(name: str | None) -> str:
    """The backend asked for by argument or environment, or "" for the first that can run.

    Raises:
        ValueError: for a name that does not exist.
    """
    name = name or os.environ.get(VARIABLE, "")
    if name and name not in (*BACKENDS, "reference"):
        known = ", ".join((*BACKENDS, "reference"))
        raise ValueError(f"backend={name!r} is unknown: choose one of {known} ({VARIABLE})")
    return name


def choose_backend(x: torch.Tensor, name: str) -> ModuleType:
    """The module of backend `name`, or of the first one that can run on `x`.

    Raises:
        ValueError: where the named backend can't run.
    """
    for candidate in [name] if name else BACKENDS:
        reason = _unavailable(candidate, x)
        if reason is None:
            return importlib.import_module(BACKENDS[candidate])
    raise ValueError(f"backend={name!r} can't run: {reason}; unset {VARIABLE} to choose another")


def _unavailable(name: str, x: torch.Tensor) -> str | None:
    try:
        return importlib.import_module(BACKENDS[name]).unavailable(x)
    except ImportError as error:
        return f"{error.name} is not installed"
