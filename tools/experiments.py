#!/usr/bin/env python
"""Run experiments to records, and renew the tables of the docs from records.

python tools/experiments.py list
python tools/experiments.py run camvid_r18 --data-root ../shared/data
python tools/experiments.py report
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from aa_plugins.experiments import plan

ROOT = Path(__file__).resolve().parents[1]
DECLARATIONS = ROOT / "configs/experiments"
RESULTS = ROOT / "docs/results"
PAGES = (ROOT / "README.md", ROOT / "docs/results.md", ROOT / "docs/benchmark.md")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="experiments and how many of their runs are finished")
    run = commands.add_parser("run", help="what isn't finished; interrupted, it goes on")
    run.add_argument("name", help="of a file in configs/experiments")
    run.add_argument("--data-root", type=Path, default="../shared/data", metavar="DIR")
    run.add_argument("--work-root", type=Path, default="work_dirs", metavar="DIR")
    run.add_argument("--variants", nargs="+", metavar="NAME", help="these alone")
    run.add_argument("--seeds", nargs="+", type=int, metavar="N", help="these alone")
    commands.add_parser("report", help="tables and plots of the docs")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.command == "list":
        for path in sorted(DECLARATIONS.glob("*.yaml")):
            runs = plan.load(path).runs()
            finished = sum(is_finished(run) for run in runs)
            print(f"{path.stem}: {finished} of {len(runs)} runs")
    elif args.command == "run":
        execute(args)
    else:
        report()


def execute(args: argparse.Namespace) -> None:
    from aa_plugins.experiments.run import execute as execute_run

    experiment = plan.load(DECLARATIONS / f"{args.name}.yaml")
    check("--variants", args.variants, experiment.variants)
    check("--seeds", args.seeds, experiment.seeds)
    runs = [
        run
        for run in experiment.runs()
        if (not args.variants or run.variant in args.variants)
        and (not args.seeds or run.seed in args.seeds)
    ]
    roots = args.data_root.resolve(), args.work_root.resolve()
    for number, run in enumerate(runs, start=1):
        where = f"{number}/{len(runs)} {run.experiment.name}/{run.name}"
        if is_finished(run):
            print(f"{where}: finished", flush=True)
            continue
        print(f"{where}: running, logs in {roots[1] / run.experiment.name / run.name}", flush=True)
        execute_run(run, *roots, RESULTS)


def check(option: str, asked: Iterable | None, declared: Iterable) -> None:
    """Raise ValueError where something is asked for that an experiment doesn't declare."""
    if unknown := sorted(set(asked or ()) - set(declared)):
        raise ValueError(f"{option} {unknown[0]}: declared are {', '.join(map(str, declared))}")


def is_finished(run: plan.Run) -> bool:
    return (RESULTS / run.experiment.name / run.name / "record.json").is_file()


def report() -> None:
    from aa_plugins.experiments.plots import save
    from aa_plugins.experiments.results import Results
    from aa_plugins.experiments.tables import renew

    for page in PAGES:
        page.write_text(renew(page.read_text(), DECLARATIONS, RESULTS))
        print(f"renewed {page.relative_to(ROOT)}")
    for path in sorted(DECLARATIONS.glob("*.yaml")):
        results = Results.read(plan.load(path), RESULTS)
        if results.records:
            print(f"drew {save(results, RESULTS).relative_to(ROOT)}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        sys.exit(f"error: {error}")
