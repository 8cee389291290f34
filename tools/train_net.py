#!/usr/bin/env python
"""Train and test any config, from a clone: `aa-plugins train` with the same options."""

import sys
from pathlib import Path

from aa_plugins.command import run

if __name__ == "__main__":
    sys.exit(run("train", sys.argv[1:], prog=f"python {Path(sys.argv[0])}"))
