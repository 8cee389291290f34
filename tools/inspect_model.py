#!/usr/bin/env python
"""What anti-aliasing does to a timm model: the report of its sites, parameters and MACs.

python tools/inspect_model.py resnet50 --aa filter=bank stem=True
python tools/inspect_model.py --all        # the table of docs/timm.md; goes on where it stopped

Delete a line of the records to have a module measured anew, or name another file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml
from timm.models import is_model

from aa_plugins import AAConfig
from aa_plugins.timm.inspection import CHECKS, cost
from aa_plugins.timm.models import TIMM_MODULES
from aa_plugins.timm.sweep import document, sweep

RECORDS = Path("docs/results/timm.jsonl")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="timm model, without aa_")
    parser.add_argument("--aa", nargs="+", default=[], metavar="FIELD=VALUE", help="of AAConfig")
    parser.add_argument("--all", action="store_true", help="every module's smallest model")
    table = parser.add_argument_group("with --all")
    table.add_argument("--checks", nargs="+", choices=CHECKS, default=list(CHECKS))
    table.add_argument("--modules", nargs="+", metavar="MODULE", help="of timm; default: all")
    table.add_argument("--results", type=Path, default=RECORDS, metavar="FILE")
    table.add_argument("--table", type=Path, default=Path("docs/timm.md"), metavar="FILE")
    args = parser.parse_args()
    if args.all == bool(args.name):
        parser.error("give the name of a model, or --all")
    if args.name and not is_model(args.name):
        parser.error(f"timm has no model {args.name!r}: timm.list_models() lists them")
    if unknown := sorted(set(args.modules or ()) - set(TIMM_MODULES)):
        parser.error(f"timm has no module {unknown[0]!r}: timm.list_modules() lists them")
    return args


def aa_config(assignments: list[str]) -> AAConfig:
    """An AAConfig from FIELD=VALUE, the values as in YAML."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        field, separator, value = assignment.partition("=")
        if not separator:
            raise SystemExit(f"--aa {assignment}: write FIELD=VALUE, e.g. filter=blur")
        values[field] = yaml.safe_load(value)
    return AAConfig.from_dict(values)


def main() -> None:
    args = parse_args()
    if args.all:
        rows = sweep(args.results, args.checks, args.modules or TIMM_MODULES)
        args.table.parent.mkdir(parents=True, exist_ok=True)
        args.table.write_text(document(rows))
        print(f"{args.table}: {len(rows)} modules")
    else:
        print(cost(args.name, aa_config(args.aa)))


if __name__ == "__main__":
    main()
