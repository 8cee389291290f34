"""Any `nn.Module`: "MODULE:FUNCTION", a function without arguments that returns it."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from torch import nn

from aa_plugins.hosts.interface import Request
from aa_plugins.hosts.module import PRETRAINED, ModuleNetwork, network_of


def load(request: Request) -> ModuleNetwork:
    """The network that a function returns. Modules are looked for in the working folder, too.

    Raises:
        ValueError: where the function returns no `nn.Module`, or the task isn't named.
        ModuleNotFoundError: where there is no such module.
    """
    if request.task is None:
        raise ValueError(
            f"{request.network}: say what it does with --task classification, semantic or instance"
        )
    if request.weights == PRETRAINED:
        raise ValueError(f"{request.network}: weights={PRETRAINED!r}: give their file")
    return network_of(build(request.network), request.task, request)


def build(network: str) -> nn.Module:
    """What the function "MODULE:FUNCTION" returns."""
    module, _, function = network.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    found = getattr(import_module(module), function, None)
    if not callable(found):
        raise ValueError(f"{network}: {module} has no function {function}")
    model = found()
    if not isinstance(model, nn.Module):
        raise ValueError(f"{network} returns {type(model).__name__}: return an nn.Module")
    return model
