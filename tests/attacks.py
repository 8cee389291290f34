"""Checkpoints that try to run code, and files that are none."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


class Call:
    """Pickled, this is the call of a function."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable, tuple[Any, ...]]:
        return self.call


def _by_method(trace: Path) -> Call:
    return Call(Path.touch, trace)


def _by_builtin(trace: Path) -> Call:
    return Call(eval, f"open({str(trace)!r}, 'w')")


def _by_getattr(trace: Path) -> Call:
    """Torch's own rebuild function calls what `getattr` finds, both being harmless alone."""
    system = Call(getattr, Path, "write_text")
    arguments = (system, torch.Tensor, (trace, "was here"), {})
    return Call(torch._tensor._rebuild_from_type_v2, *arguments)


ATTACKS: dict[str, Callable[[Path], Call]] = {
    "method": _by_method,
    "builtin": _by_builtin,
    "getattr": _by_getattr,
}


def write_attack(
    name: str, folder: Path, suffix: str = "pth", state: dict[str, Any] | None = None
) -> tuple[Path, Path]:
    """A checkpoint that creates a file where it is read carelessly: its path, and that file's."""
    file, trace = folder / f"attack-{name}.{suffix}", folder / f"trace-{name}"
    content = {"state_dict": state or {}, "model": state or {}, "meta": ATTACKS[name](trace)}
    if suffix == "pkl":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file)
    return file, trace


BROKEN = ("text", "empty", "cut off", "list", "whole network", "missing")


def write_broken(kind: str, folder: Path, suffix: str = "pth") -> Path:
    """A path that no weights can be read from."""
    file = folder / f"{kind.replace(' ', '-')}.{suffix}"
    contents = {"list": [1, 2], "whole network": torch.nn.Linear(2, 2)}
    if kind == "text":
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    elif kind == "empty":
        file.touch()
    elif kind != "missing":
        content = contents.get(kind, {"model": {"w": list(range(3000))}})
        if suffix == "pkl":
            file.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, file)
        if kind == "cut off":
            file.write_bytes(file.read_bytes()[:-1000])
    return file


# Every way of loading meets one of each here, and all of them in the long run.
SOME = [
    (("getattr",), ("cut off",)),
    pytest.param(tuple(ATTACKS), BROKEN, marks=pytest.mark.slow),
]
