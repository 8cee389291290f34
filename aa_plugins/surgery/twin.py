"""Structural copies of a network, on which anything may be tried without leaving a trace."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import CellType, FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

# How deep a map may be nested in what a network returns or keeps.
DEEPEST = 6


def twin_of(model: nn.Module, drawn: Mapping[int, torch.Tensor] | None = None) -> nn.Module:
    """A copy of `model` in eval mode: parameters are shared, everything else is its own.

    Hooks are copied with what they store to. What can't be copied (a lock, a file) is shared.

    Args:
        drawn: tensors in place of parameters, by the parameters' id.
    """
    modules = list(model.modules())
    memo: dict[int, Any] = {id(p): p for p in model.parameters()} | dict(drawn or {})
    for module in modules:
        scripted = isinstance(module, torch.jit.ScriptModule)
        memo[id(module)] = module if scripted else object.__new__(type(module))
        for _, tensor in tensors_in(vars(module)):
            memo.setdefault(id(tensor), tensor.detach().clone())
    for module in modules:
        twin = memo[id(module)]
        if twin is not module:
            vars(twin).update({name: _copied(v, memo) for name, v in vars(module).items()})
    twin = memo[id(model)]
    for module in twin.modules():  # not train(), which some networks override
        module.training = False
    return twin


def tensors_in(tree: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in nested containers and objects, with its path; modules aren't entered."""
    yield from _tensors_in(tree, path, set(), 0)


def _tensors_in(
    tree: Any, path: str, seen: set[int], depth: int
) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(tree, torch.Tensor):
        yield path, tree
        return
    if depth > DEEPEST or id(tree) in seen:
        return
    seen.add(id(tree))
    for name, value in _items(tree, depth):
        yield from _tensors_in(value, f"{path}.{name}" if path else str(name), seen, depth + 1)


def _items(tree: Any, depth: int) -> Collection[tuple[Any, Any]]:
    if isinstance(tree, (nn.Module, type, ModuleType, FunctionType, str, bytes)):
        return ()
    if isinstance(tree, Mapping):
        return list(tree.items())
    if isinstance(tree, (list, tuple, set, frozenset)):
        return list(enumerate(tree))
    if is_dataclass(tree):
        return [(f.name, getattr(tree, f.name)) for f in fields(tree) if hasattr(tree, f.name)]
    # Other objects (instances of detections, samples of a data set) but not what they refer to.
    return list(getattr(tree, "__dict__", {}).items()) if depth < 3 else ()


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of an attribute of a module, with the copies that `memo` holds already."""
    if isinstance(value, FunctionType):
        return _copied_function(value, memo)
    if isinstance(value, dict) and any(isinstance(v, FunctionType) for v in value.values()):
        copied = type(value)()
        copied.update({key: _copied(v, memo) for key, v in value.items()})
        return copied
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # whatever an object raises that can't be copied
        return value


def _copied_function(function: FunctionType, memo: dict[int, Any]) -> FunctionType:
    """A function, most likely a hook, whose closure and global containers are copies."""
    used = {n: function.__globals__.get(n) for n in function.__code__.co_names}
    used = {name: value for name, value in used.items() if isinstance(value, (list, dict, set))}
    if id(function) in memo or not (function.__closure__ or function.__defaults__ or used):
        return memo.get(id(function), function)
    scope = function.__globals__
    if used:
        scope = scope | {name: _copied(value, memo) for name, value in used.items()}
    cells = tuple(CellType() for _ in function.__closure__ or ())
    twin = FunctionType(function.__code__, scope, function.__name__, None, cells)
    memo[id(function)] = twin  # before its cells, of which one may hold it
    twin.__defaults__ = _copied(function.__defaults__, memo)
    twin.__kwdefaults__ = _copied(function.__kwdefaults__, memo)
    for cell, original in zip(cells, function.__closure__ or ()):
        try:
            cell.cell_contents = _copied(original.cell_contents, memo)
        except ValueError:  # an empty cell
            continue
    return twin
