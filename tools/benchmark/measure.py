"""Interleaved timing, and growth of peak memory in a process of its own."""

from __future__ import annotations

import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import trange

MEBIBYTE = 2**20
Key = TypeVar("Key")


@dataclass(frozen=True)
class Timing:
    """Seconds of one call over the rounds."""

    minimum: float
    median: float
    rounds: int


def clock_of(device: str, threads: int) -> tuple[str, Callable[[], float]]:
    """The clock and what it shows.

    One thread on the CPU is timed in its own CPU seconds, which other programs on the machine
    disturb less than the time of day.
    """
    if device == "cpu" and threads == 1:
        return "CPU time", time.process_time
    return "wall time", time.perf_counter


def rounds_of(
    tasks: Mapping[Key, Callable[[], Any]], rounds: int, device: str = "cpu", what: str = ""
) -> dict[Key, list[float]]:
    """Seconds of every task, once a round, so that a slow spell of the machine meets them all.

    The order is drawn anew each round (seeded): what runs after a task that emptied the caches, or
    made the allocator give its memory back, pays for that.

    Args:
        tasks: name → what to call. A first round is not counted.
        what: label of the progress bar.
    """
    _, clock = clock_of(device, torch.get_num_threads())
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds: dict[Key, list[float]] = {name: [] for name in tasks}
    order, draw = [*tasks], random.Random(0)
    for counted in trange(-1, rounds, desc=what, leave=False):
        draw.shuffle(order)
        for name in order:
            wait()
            start = clock()
            tasks[name]()
            wait()
            if counted >= 0:
                seconds[name].append(clock() - start)
    return seconds


def interleaved(
    tasks: Mapping[str, Callable[[], Any]], rounds: int, device: str = "cpu", what: str = ""
) -> dict[str, Timing]:
    """The timing of every task; see `rounds_of`."""
    return {
        name: Timing(min(values), statistics.median(values), rounds)
        for name, values in rounds_of(tasks, rounds, device, what).items()
    }


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function(*arguments)` returns in a process without a past."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_growths(
    prepare: Callable[..., Callable[[], Any]], calls: Sequence[tuple[Any, ...]]
) -> list[float | None]:
    """By how many MiB each `prepare(*arguments)()` grows a process at most, beyond `prepare`.

    Counts the resident memory of a process each, hence also what libraries allocate past
    PyTorch. None where the system can't say (Linux can).

    Args:
        calls: the arguments of each call.
    """
    if not Path("/proc/self/clear_refs").exists():
        return [None] * len(calls)
    return [in_new_process(_growth, prepare, *arguments) for arguments in calls]


def _growth(prepare: Callable[..., Callable[[], Any]], *arguments: Any) -> float:
    torch.set_num_threads(1)
    task = prepare(*arguments)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak up to here
    before = _resident("VmRSS")
    task()
    return (_resident("VmHWM") - before) / MEBIBYTE


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(field)))
