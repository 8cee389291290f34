#!/usr/bin/env python
"""Shift consistency, from a clone: `aa-plugins consistency`, with networks after --config-file."""

import sys
from pathlib import Path

from aa_plugins.command import run


def networks_first(arguments: list[str]) -> list[str]:
    """The command line with the values of --config-file where the command wants networks."""
    if "--config-file" not in arguments:
        return arguments
    start = arguments.index("--config-file")
    end = start + 1
    while end < len(arguments) and not arguments[end].startswith("--"):
        end += 1
    return [*arguments[start + 1 : end], *arguments[:start], *arguments[end:]]


if __name__ == "__main__":
    prog = f"python {Path(sys.argv[0])}"
    sys.exit(run("consistency", networks_first(sys.argv[1:]), prog))
