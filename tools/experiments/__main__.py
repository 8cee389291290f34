"""Run experiments to records, and renew the tables of the docs from records.

python tools/experiments list
python tools/experiments run camvid_r18 --data-root DATA
python tools/experiments report
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where the laboratory's packages are

from experiments import plan

ROOT = Path(__file__).resolve().parents[2]
DECLARATIONS = ROOT / "configs/experiments"
RESULTS = ROOT / "docs/results"
WITH_TABLES = ("results", "choosing", "benchmark", "robustness", "deploy")
PAGES = (ROOT / "README.md", *(ROOT / f"docs/{name}.md" for name in WITH_TABLES))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tools/experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="experiments and how many of their runs are finished")
    run = commands.add_parser("run", help="what isn't finished; interrupted, it goes on")
    run.add_argument("name", help="of a file in configs/experiments")
    run.add_argument(
        "--data-root",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the data sets; docs/recipes.md says where they come from",
    )
    run.add_argument("--work-root", type=Path, default="work_dirs", metavar="DIR")
    run.add_argument("--variants", nargs="+", metavar="NAME", help="these alone")
    run.add_argument("--seeds", nargs="+", type=int, metavar="N", help="these alone")
    run.add_argument(
        "--again", action="store_true", help="also what is finished; replaces its records"
    )
    flicker = commands.add_parser("flicker", help="of what is trained, on the labelled video")
    flicker.add_argument("--data-root", type=Path, required=True, metavar="DIR")
    flicker.add_argument("--work-root", type=Path, default="work_dirs", metavar="DIR")
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
    elif args.command == "flicker":
        from experiments.flicker import EXPERIMENTS, measure

        declared = [plan.load(DECLARATIONS / f"{name}.yaml") for name in EXPERIMENTS]
        path = measure(declared, args.data_root.resolve(), args.work_root.resolve(), RESULTS)
        print(f"Saved as {path.relative_to(ROOT)}; report makes the table")
    else:
        report()


def execute(args: argparse.Namespace) -> None:
    experiment = plan.load(DECLARATIONS / f"{args.name}.yaml")
    check("--variants", args.variants, experiment.variants)
    check("--seeds", args.seeds, experiment.seeds)
    runs = [
        run
        for run in experiment.runs()
        if (not args.variants or run.variant in args.variants)
        and (not args.seeds or run.seed in args.seeds)
    ]
    data_root, work_root = args.data_root.resolve(), args.work_root.resolve()
    if not (data := data_root / experiment.data).is_dir():
        raise FileNotFoundError(
            f"--data-root {args.data_root}: no folder {data}; docs/recipes.md says where the data "
            "sets come from"
        )
    from experiments.run import execute as execute_run

    for number, run in enumerate(runs, start=1):
        where = f"{number}/{len(runs)} {run.home}/{run.name}"
        if is_finished(run) and not args.again:
            record = record_of(run).relative_to(ROOT)
            print(f"{where}: finished, its record is {record}; --again runs it anew", flush=True)
            continue
        work = work_root / run.home / run.name
        if is_finished(run) and (work / "evaluate.json").is_file():
            raise ValueError(f"--again: {work} holds the finished run: name another --work-root")
        print(f"{where}: running, logs in {work}", flush=True)
        execute_run(run, data_root, work_root, RESULTS)


def check(option: str, asked: Iterable | None, declared: Iterable) -> None:
    """Raise ValueError where something is asked for that an experiment doesn't declare."""
    if unknown := sorted(set(asked or ()) - set(declared)):
        raise ValueError(f"{option} {unknown[0]}: declared are {', '.join(map(str, declared))}")


def is_finished(run: plan.Run) -> bool:
    return record_of(run).is_file()


def record_of(run: plan.Run) -> Path:
    return RESULTS / run.home / run.name / "record.json"


def report() -> None:
    from experiments.plots import save
    from experiments.results import Results
    from experiments.tables import renew

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
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on")
