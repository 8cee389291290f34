"""What is wrong with a user's config, in one line instead of a traceback of the host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from mmengine.registry import Registry
from mmseg import registry as mmseg_registries

UNREGISTERED = re.compile(r"(\S+) is not in the \S+::(.+) registry")
WORKER = "Original Traceback (most recent call last)"


@contextmanager
def config_faults(config: object) -> Iterator[None]:
    """While a config is read or built, whatever the host raises is the config's fault.

    Args:
        config: its name, for the message.

    Raises:
        ValueError: one line, with the host's own error as its cause. What says enough in a line of
            its own (ValueError, OSError) passes.
    """
    try:
        yield
    except Exception as error:
        raise _explained(error) or ValueError(f"{config}: {_line(error)}") from error


@contextmanager
def run_faults() -> Iterator[None]:
    """While a run goes on, what is known to be the fault of its inputs becomes one line.

    Raises:
        ValueError: as `config_faults`; an error that isn't known passes as it is.
    """
    try:
        yield
    except Exception as error:
        if (known := _explained(error)) is None or known is error:
            raise
        raise known from error


def unregistered(name: str, kind: str) -> str:
    """What to say of a name that a registry of that kind doesn't have."""
    registries = [r for r in vars(mmseg_registries).values() if isinstance(r, Registry)]
    names = {name for r in registries if r.name == kind for name in _names(r)}
    close = get_close_matches(name, sorted(names), n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return (
        f"no {kind} is named {name!r}: {guess}(ours need "
        'custom_imports = dict(imports=["aa_plugins.mmseg"], allow_failed_imports=False))'
    )


def _explained(error: Exception) -> Exception | None:
    """The error in one line, None where it isn't known."""
    text = str(error.args[0]) if error.args else ""
    if WORKER in text:  # of a process that loads data: the last line is what it raised
        kind, _, message = text.strip().splitlines()[-1].partition(": ")
        return ValueError(message) if kind.endswith(("Error", "BadImage")) else None
    if "failed to load image" in text:
        return ValueError(f"{text}: replace the file, or take it out of the data set")
    if found := UNREGISTERED.search(text):
        return ValueError(unregistered(*found.groups()))
    if isinstance(error, (ValueError, OSError)) and "\n" not in text:
        return error
    return None


def _names(registry: Registry | None) -> Iterator[str]:
    if registry is not None:
        yield from registry.module_dict
        yield from _names(registry.parent)


def _line(error: Exception) -> str:
    """Kind and message of an error, without line breaks."""
    message = " ".join(str(error.args[0] if error.args else error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
