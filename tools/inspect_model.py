#!/usr/bin/env python
"""What anti-aliasing does to a timm model, from a clone: `aa-plugins inspect timm:NAME`."""

import sys
from pathlib import Path

from aa_plugins.command import run

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-") and ":" not in arguments[0]:
        arguments[0] = f"timm:{arguments[0]}"
    sys.exit(run("inspect", arguments, prog=f"python {Path(sys.argv[0])}"))
