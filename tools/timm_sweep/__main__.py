"""The table of docs/timm.md: what anti-aliasing does to every timm module's smallest model.

python tools/timm_sweep        # goes on where it stopped

Delete a line of the records to have a module measured anew, or name another file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where the laboratory's packages are

from aa_plugins.timm.models import TIMM_MODULES
from timm_sweep.inspection import CHECKS
from timm_sweep.sweep import document, sweep

ROOT = Path(__file__).resolve().parents[2]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tools/timm_sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    records, table = ROOT / "docs/results/timm.jsonl", ROOT / "docs/timm.md"
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--modules", nargs="+", metavar="MODULE", help="of timm; default: all")
    parser.add_argument("--results", type=Path, default=records, metavar="FILE")
    parser.add_argument("--table", type=Path, default=table, metavar="FILE")
    args = parser.parse_args()
    if unknown := sorted(set(args.modules or ()) - set(TIMM_MODULES)):
        parser.error(f"timm has no module {unknown[0]!r}: timm.list_modules() lists them")
    return args


def main() -> None:
    args = parse_args()
    rows = sweep(args.results, args.checks, args.modules or TIMM_MODULES)
    args.table.parent.mkdir(parents=True, exist_ok=True)
    args.table.write_text(document(rows))
    print(f"{args.table}: {len(rows)} modules")


if __name__ == "__main__":
    main()
