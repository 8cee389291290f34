"""How right, and how consistent under shifts, networks stay where images aren't as usual.

corruptions: the 15 of ImageNet-C at 5 severities, on any task (Cityscapes-C, COCO-C, VOC-C)
  aa-plugins robustness corruptions timm:resnet50 timm:aa_resnet50 --weights a.pth b.pth --data val
bands: as each of 16 radial bands of frequencies is taken from the input
  aa-plugins robustness bands A.py B.py --weights a.pth b.pth --data-root data/camvid --images 100
shifts: the worst of all shifts within a radius, or of as many as a budget allows
  aa-plugins robustness shifts A.py B.py --weights a.pth b.pth --radius 16 --budget 64
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aa_plugins.command.consistency import choose_protocol, quiet, refuse_records
from aa_plugins.command.networks import add_networks, load_networks, names_of
from aa_plugins.command.options import add_images, add_out, add_resume

if TYPE_CHECKING:
    from aa_plugins.evaluation.protocol import Protocol
    from aa_plugins.hosts.interface import Network

KINDS = ("corruptions", "bands", "shifts")
# A few views: every condition takes as many passes.
FEW = '{"shifts": [[1, 0], [0, 1], [3, 3]], "controls": false}'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("analysis", choices=KINDS, help="what is done to the images")
    add_networks(parser)
    add_out(parser, "out/robustness")
    add_resume(parser)
    add_images(parser)
    parser.add_argument("--images", type=int, metavar="N", help="evenly spread, at most")
    parser.add_argument("--sequences", metavar="RULE", help="of frames, as in consistency")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--protocol", metavar="JSON", help=f"views of an image; by default {FEW}")
    how.add_argument("--preset", metavar="NAME", help="zhang, zou, zou-worst, lps or lps-linear")
    parser.add_argument("--corruptions", nargs="+", metavar="NAME", help="these alone")
    parser.add_argument("--severities", nargs="+", type=int, metavar="N", help="of 1 to 5")
    parser.add_argument("--radius", type=int, default=16, metavar="N", help="of shifts, in pixels")
    parser.add_argument("--budget", type=int, metavar="N", help="shifts an image; all by default")


def run(args: argparse.Namespace) -> None:
    check(args)
    for name in names_of(args.networks):
        refuse_records(args.out / args.analysis / name, args.resume)
    with quiet(args.debug):
        images = {name: getattr(args, name) for name in ("data", "labels", "annotations", "ignore")}
        networks = load_networks(args, **images)
        if args.protocol is None and args.preset is None and args.analysis != "shifts":
            args.protocol = FEW
        protocol = choose_protocol(args, list(networks.values()))
        folder = args.out / args.analysis
        records = {
            name: measure(args, network, protocol, folder / name)
            for name, network in networks.items()
        }
    report(args, next(iter(networks.values())).task, records, protocol)


def check(args: argparse.Namespace) -> None:
    """Raise ValueError for an option of another analysis, which would have no effect."""
    own = {"corruptions": ("corruptions", "severities"), "bands": (), "shifts": ("budget",)}
    for analysis, names in own.items():
        for name in names:
            if analysis != args.analysis and getattr(args, name) is not None:
                raise ValueError(f"--{name} has no effect on {args.analysis}, but on {analysis}")
    if args.analysis == "shifts" and args.preset is not None:
        raise ValueError("--preset has no effect on shifts, which are all within --radius")


def measure(
    args: argparse.Namespace, network: Network, protocol: Protocol, folder: Path
) -> list[dict[str, Any]]:
    """Records of one network."""
    from aa_plugins.robustness import conditions, corruptions, spectrum, worst_shift

    common = {"resume": args.resume, "images": args.images, "sequences": args.sequences}
    if args.analysis == "shifts":
        protocol = worst_shift.shift_protocol(protocol.to_dict(), args.radius)
        return worst_shift.measure_worst(
            network, protocol, args.radius, folder, args.budget, **common
        )
    if args.analysis == "bands":
        found = spectrum.band_conditions()
    else:
        found = corruptions.corruption_conditions(
            tuple(args.corruptions or corruptions.CORRUPTIONS),
            tuple(args.severities or corruptions.SEVERITIES),
        )
    return conditions.measure(network, found, protocol, folder, args.analysis, **common)


def report(args: argparse.Namespace, task: str, records: dict, protocol: Protocol) -> None:
    """Tables and a page; of corruptions also errors over those of the first network."""
    from aa_plugins.report.comparison import comparison
    from aa_plugins.report.table import result_table
    from aa_plugins.robustness.tasks import ANALYSES, corruption_errors

    command = " ".join(["aa-plugins robustness", *args.arguments])
    notes = {"command": command, "protocol": protocol.to_dict()}
    made = comparison(
        args.analysis.title(), records, ANALYSES[f"{task}/{args.analysis}"], None, notes
    )
    said = made.text()
    if args.analysis == "corruptions" and len(records) > 1:
        first, *others = records
        errors = {name: corruption_errors(task, records[name], records[first]) for name in others}
        made.notes["errors"] = {"reference": first, **errors}
        table = result_table(errors, ("mCE", "relative_mCE"))
        said += f"\n\nErrors under corruption, in percent of those of {first}\n\n{table.text()}"
    made.save(args.out, args.analysis)
    print(f"{said}\n\nSaved as {args.out}/{args.analysis}.json, .md and .html")
