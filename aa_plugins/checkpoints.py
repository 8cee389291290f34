"""The one place that reads checkpoint files: weights and plain data, never code.

A pickle can call anything that it names. Of what a file names, only the rows of `_allowed` exist
here; classes of the reader's own choice are added by `torch.serialization.add_safe_globals`.
"""

from __future__ import annotations

import argparse
import codecs
import io
import logging
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

State = Mapping[str, torch.Tensor]

logger = logging.getLogger(__name__)

# Entries under which trainers keep weights, in order of preference, and moving averages of them.
ENTRIES = ("state_dict", "model", "model_state", "model_state_dict")
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict")
# What DistributedDataParallel, torch.compile, Lightning and swa_utils put before every key.
PREFIXES = ("module.", "_orig_mod.", "model.")
STATISTICS = ("min", "max", "current", "mean")
DTYPES = "?bBhHiIlLqQefd"


class History:
    """Stands for mmengine's HistoryBuffer, the log inside of its checkpoints."""

    min = max = current = mean = None


def read_checkpoint(
    path: str | Path, history: type = History, device: torch.device | str = "cpu"
) -> Mapping[str, Any]:
    """What `torch.save` (or safetensors) wrote into a file; runs no code of the file.

    Args:
        history: what the HistoryBuffers of mmengine's checkpoints become.
        device: where its tensors come to be.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a file that is empty, cut off or of another kind, that holds no dict, or
            that names anything but weights and plain data.
    """
    file = existing(path)

    def load(file: Path) -> Any:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file, device=str(device))
        with torch.serialization.safe_globals(_allowed(history)):
            return torch.load(file, map_location=device, weights_only=True)

    return _mapping(_translated(load, file), file)


def read_pickle(path: str | Path) -> Mapping[str, Any]:
    """A plain pickle of arrays, as Detectron2's model zoo has it (.pkl); runs no code of the file.

    Raises:
        FileNotFoundError, ValueError: as `read_checkpoint`.
    """
    file = existing(path)
    return _mapping(_translated(lambda f: _Arrays(io.BytesIO(f.read_bytes())).load(), file), file)


def existing(path: str | Path) -> Path:
    """`path`.

    Raises:
        FileNotFoundError: where it isn't a file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint {path}: give the path of a .pth file")
    return Path(path)


def weights_in(
    checkpoint: Mapping[str, Any],
    keys: Iterable[str],
    source: object = "the checkpoint",
    entries: Sequence[str] = ENTRIES,
) -> dict[str, torch.Tensor]:
    """The state dict inside of a checkpoint, without what wrappers put before its keys.

    Of weights and their moving average beside them the former are taken, and the latter named.
    (What mmengine keeps as `state_dict` is the average.)

    Args:
        keys: of the network that it is meant for.
        entries: under which weights may be, in order of preference.

    Raises:
        ValueError: where something isn't a tensor.
    """
    state = checkpoint
    while found := [entry for entry in entries if isinstance(state.get(entry), Mapping)]:
        known = dict.fromkeys((*entries, *AVERAGES))
        if others := [entry for entry in known if entry in state and entry != found[0]]:
            logger.warning(
                f"{source} holds weights under {', '.join(map(repr, others))} too: those under "
                f"{found[0]!r} are loaded"
            )
        state = state[found[0]]
    state = _unwrapped(state, set(keys))
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(
                f"{source} holds {type(value).__name__} {key!r} where weights were expected: is it "
                "a state dict, or a dict with one under 'state_dict' or 'model'?"
            )
    return dict(state)


def check_finite(state: Mapping[str, Any], own: State, source: object = "the checkpoint") -> None:
    """Refuse weights that aren't finite, but for infinities that the network has there itself.

    Args:
        own: the network's state, by the same keys; where it has none, infinities pass.

    Raises:
        ValueError: naming the tensor.
    """
    for key, value in state.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            continue
        wrong = value.isnan()
        if key in own and own[key].isfinite().all():
            wrong = ~value.isfinite()
        if wrong.any():
            raise ValueError(
                f"{source}: {int(wrong.sum())} of {value.numel()} values of {key!r} aren't finite: "
                "the training that wrote it diverged, give an earlier checkpoint"
            )


def _unwrapped(state: Mapping[str, Any], keys: set[str]) -> Mapping[str, Any]:
    """Without prefixes that every key has and no key of the network; and a count of averages."""
    state = {key.replace("._orig_mod.", "."): value for key, value in state.items()}
    while True:
        others = {key: value for key, value in state.items() if key != "n_averaged"}
        found = [p for p in PREFIXES if others and all(key.startswith(p) for key in others)]
        if not found or any(key.startswith(found[0]) for key in keys):
            return state
        state = {key.removeprefix(found[0]): value for key, value in others.items()}


def _translated(load: Callable[[Path], Any], file: Path) -> Any:
    """`load(file)`, whatever it raises in one line that names the file."""
    if not file.stat().st_size:
        raise ValueError(f"{file} is empty: give a checkpoint that was written to its end")
    try:
        return load(file)
    except Exception as error:  # bytes of another meaning lead to many kinds
        if isinstance(error, OSError) and error.filename:
            raise
        reason = str(error)
        if named := re.search(r"GLOBAL (\S+)", reason):
            raise ValueError(
                f"{file} isn't read: it names {named[1]}, and a checkpoint may hold weights and "
                "plain data only; if you trust its origin, torch.serialization.add_safe_globals "
                "lets such a name in"
            ) from error
        detail = re.search(r"Unpickler error: (.+)", reason)
        line = (detail[1] if detail else reason).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{file} isn't a checkpoint, or is cut off ({line[0][:150]})") from error


def _mapping(found: Any, file: Path) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise ValueError(f"{file} holds {type(found).__name__}, not weights: give a state dict")
    return found


class _Arrays(pickle.Unpickler):
    """Plain data and arrays of numbers."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="latin1")
        self.allowed = {
            **{name: found for found, name in _numpy_globals()},
            "_codecs.encode": codecs.encode,
            "collections.OrderedDict": OrderedDict,
        }

    def find_class(self, module: str, name: str) -> Any:
        if (found := self.allowed.get(f"{module}.{name}")) is None:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return found


def _allowed(history: type) -> list[tuple[Any, str]]:
    """What a file may name, and the name: pairs, as `torch.serialization.safe_globals` takes."""

    def statistic(owner: Any, name: Any) -> Any:
        """In place of `getattr`, by which methods are pickled."""
        if owner is not history or name not in STATISTICS:
            raise pickle.UnpicklingError("GLOBAL builtins.getattr")
        return getattr(history, name)

    return [
        (history, "mmengine.logging.history_buffer.HistoryBuffer"),
        (statistic, "builtins.getattr"),
        (argparse.Namespace, "argparse.Namespace"),
        *_numpy_globals(),
    ]


def _numpy_globals() -> list[tuple[Any, str]]:
    """Arrays and scalars of numbers, under their names in either generation of numpy."""

    def from_buffer(values: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> Any:
        return np.frombuffer(values, dtype).reshape(shape, order=order)

    scalar, array = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
    kinds = {type(np.dtype(code)) for code in DTYPES}
    return [
        (np.ndarray, "numpy.ndarray"),
        (np.dtype, "numpy.dtype"),
        *((kind, f"{kind.__module__}.{kind.__qualname__}") for kind in kinds),
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        *((array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        *((from_buffer, f"numpy.{core}.numeric._frombuffer") for core in ("core", "_core")),
    ]
