"""Measure time and memory of the filters; prints tables and writes every figure as JSON."""

import argparse
import json
import platform
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where the laboratory's packages are

from aa_plugins.ops import backend_report
from benchmark import SUITES, as_markdown, below_the_bar
from benchmark.measure import clock_of

CPU_ALONE = ("runtime", "compiled")


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give 1 or more")
    return number


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tools/benchmark",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "suites", nargs="*", metavar="SUITE", help=f"{', '.join(SUITES)}; all by default"
    )
    parser.add_argument("--rounds", type=positive, default=10, help="interleaved rounds")
    parser.add_argument("--threads", type=positive, default=1, help="threads on the CPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmark.json"), help="JSON to write")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.suites) - set(SUITES))
    if unknown:
        parser.error(f"unknown suite {unknown[0]!r}: choose from {', '.join(SUITES)}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here, leave it out to measure on the CPU")
    if arguments.device == "cuda" and (refused := {*arguments.suites} & {*CPU_ALONE}):
        parser.error(f"--device cuda: suite {refused.pop()} is measured on the CPU")
    foreign = CPU_ALONE if arguments.device == "cuda" else ()
    arguments.suites = arguments.suites or [name for name in SUITES if name not in foreign]
    return arguments


def main() -> None:
    """Run the suites, and write what they found as it comes in."""
    arguments = parse_args()
    torch.set_num_threads(arguments.threads)
    clock, _ = clock_of(arguments.device, arguments.threads)
    machine = {
        "torch": torch.__version__,
        "device": arguments.device,
        "processor": torch.backends.cpu.get_cpu_capability() + " " + platform.machine(),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "clock": clock,
        "backends": backend_report(torch.zeros(1, device=arguments.device)),
    }
    print(", ".join(f"{key}: {value}" for key, value in machine.items()))
    rows = []
    for name in arguments.suites:
        for found in SUITES[name](arguments.rounds, arguments.device):
            rows += [{"suite": name, **row} for row in found]
            print(f"\n{as_markdown(found)}", flush=True)
            arguments.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    print(f"\nwrote {arguments.out}")
    if missed := below_the_bar(rows):
        sys.exit("\n".join(missed))


if __name__ == "__main__":
    main()
