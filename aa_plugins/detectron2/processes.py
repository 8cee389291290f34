"""Running a function in one or several processes, and what a run says on the terminal."""

from __future__ import annotations

import builtins
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2 import engine
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.multiprocessing import ProcessRaisedException

LOGGERS = ("detectron2", "fvcore", "aa_plugins")


def check_processes(processes: int, training: bool = False) -> None:
    """Raise ValueError where this machine can't run as many processes, one on each GPU.

    Without a GPU evaluation is divided among processes on the CPU; training isn't.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if processes < 1:
        raise ValueError(f"--num-gpus {processes}: give 1 or more; 1 runs on the CPU without a GPU")
    if gpus and processes > gpus:
        raise ValueError(f"--num-gpus {processes}: this machine has {gpus}")
    if not gpus and training and processes > 1:
        raise ValueError(
            f"--num-gpus {processes}: this machine has no GPU, and training isn't divided on a "
            "CPU: leave it out"
        )


def launch(function: Callable[..., Any], processes: int, *args: Any, **machines: Any) -> None:
    """Run `function(*args)` in each process; what was wrong with the input is said in one line.

    Args:
        machines: num_machines, machine_rank and dist_url as of Detectron2's `launch`.

    Raises:
        ValueError, OSError: what the function raises, also in another process or in a worker that
            loads data; ValueError for a training that diverged, and for what Detectron2 asserts of
            a config or looks up in vain.
    """
    machines.setdefault("dist_url", "auto")
    try:
        engine.launch(_in_one_line, processes, args=(function, args), **machines)
    except ProcessRaisedException as error:
        kind, _, text = str(error).strip().splitlines()[-1].partition(": ")
        if not issubclass(getattr(builtins, kind, Exception), (ValueError, OSError)):
            raise
        raise ValueError(text) from error


def _in_one_line(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        function(*args)
        if comm.get_world_size() > 1:  # gloo aborts a process whose peer is gone before it
            comm.synchronize()
            torch.distributed.destroy_process_group()
    except (ValueError, OSError) as error:
        text = str(error).strip()
        if "Original Traceback" not in text:  # which a worker that loads data puts before it
            raise
        raise ValueError(text.splitlines()[-1].partition(": ")[2]) from error
    except FloatingPointError as error:
        raise ValueError(
            f"{' '.join(str(error).split())} Lower the learning rate, warm up for longer, or clip "
            "gradients"
        ) from error
    except (AssertionError, KeyError) as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if not error.args or not {"detectron2", "fvcore"} & set(raised_in.parts):
            raise
        raise ValueError(" ".join(str(error.args[0]).split())) from error
    except NotImplementedError as error:
        raise ValueError(str(error)) from error


def set_up_logging(folder: str) -> None:
    """Log to the terminal and to `folder`/log.txt; tracebacks go to the file alone."""
    # As Detectron2's default_setup calls it, which then finds the handlers that are there.
    setup_logger(folder, distributed_rank=comm.get_rank())
    for name in LOGGERS[1:]:
        setup_logger(folder, distributed_rank=comm.get_rank(), name=name)
    for handler in _terminal():
        handler.addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is None


@contextmanager
def only_in_the_log() -> Iterator[None]:
    """What is logged inside, such as whole configs and networks, goes to the file alone."""
    handlers = _terminal()
    levels = [handler.level for handler in handlers]
    try:
        for handler in handlers:
            handler.setLevel(logging.WARNING)
        yield
    finally:
        for handler, level in zip(handlers, levels):
            handler.setLevel(level)


def _terminal() -> list[logging.Handler]:
    handlers = {h: None for name in LOGGERS for h in logging.getLogger(name).handlers}
    return [h for h in handlers if getattr(h, "stream", None) in (sys.stdout, sys.__stdout__)]
