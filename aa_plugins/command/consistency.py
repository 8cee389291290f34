"""How far a network's predictions change when the image moves by a few pixels, with 95 % intervals;
of several networks on the same images also their paired differences.

A classifier on a folder of images, or of class folders:
  aa-plugins consistency timm:resnet50 timm:aa_resnet50 --weights a.pth b.pth --data photos
A segmentor of your own (shop/nets.py has a function `build` that returns the nn.Module):
  aa-plugins consistency shop.nets:build --task semantic --data images --labels labels
A detector on a file in COCO's format:
  aa-plugins consistency torchvision:maskrcnn_resnet50_fpn --weights w.pth \\
    --data images --annotations instances.json
Configs of MMSegmentation or Detectron2, on their own test sets:
  aa-plugins consistency A.py B.py --weights a.pth b.pth --data-root data/camvid
What test runs have measured:
  aa-plugins consistency --records plain=work_dirs/a/shift_consistency blur=work_dirs/b/…
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aa_plugins.command.networks import add_networks, load_networks, names_of
from aa_plugins.command.options import add_images, add_out, add_resume

if TYPE_CHECKING:
    from aa_plugins.evaluation.protocol import Protocol
    from aa_plugins.hosts.interface import Network
    from aa_plugins.report.elements import Picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_networks(parser, "*")
    add_out(parser, "out/consistency")
    add_resume(parser)
    add_images(parser)
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="for Detectron2")
    parser.add_argument(
        "--records",
        nargs="+",
        default=[],
        metavar="NAME=DIR",
        help="compare what test runs have measured, instead of running networks",
    )
    parser.add_argument(
        "--sequences",
        metavar="RULE",
        help="images are frames: camvid, cityscapes, video (a folder a clip), or a regular "
        "expression with the groups sequence and position, of an image's id",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--protocol", metavar="JSON", help='such as \'{"kind": "pairs", "pairs": 4}\'')
    how.add_argument("--preset", metavar="NAME", help="zhang, zou, zou-worst, lps or lps-linear")


def run(args: argparse.Namespace) -> None:
    if bool(args.networks) == bool(args.records):
        raise ValueError("give either networks, with --weights, or --records NAME=DIR")
    from aa_plugins.evaluation.sequences import compiled, placed

    if args.sequences is not None:
        compiled(args.sequences)  # a wrong rule is told now, not after the run
    pictures = []
    with quiet(args.debug):
        rows = args.records
        if not rows:
            networks = loaded(args)
            rows = measure_all(args, networks)
            pictures = first_image_moving(networks)
    from aa_plugins.evaluation.tasks import task_of
    from aa_plugins.report.comparison import comparison

    headers, records = read(rows)
    records = {name: placed(found, args.sequences) for name, found in records.items()}
    command = " ".join(["aa-plugins consistency", *args.arguments])
    notes = {"command": command, "protocol": next(iter(headers.values()))["protocol"]}
    if any(header["left_out"] for header in headers.values()):
        notes["left_out"] = {name: header["left_out"] for name, header in headers.items()}
    report = comparison("Shift consistency", records, task_of(headers), notes=notes)
    report = replace(report, pictures=pictures)
    report.save(args.out, "consistency")
    print(f"{report.text()}\n\nSaved as {args.out}/consistency.json, .md and .html")


def read(rows: list[str]) -> tuple[dict[str, dict], dict[str, list[dict]]]:
    """Headers and records that runs have left in folders, by name, of NAME=DIR."""
    from aa_plugins.evaluation.records import read_records

    folders = dict(row.split("=", 1) for row in rows if "=" in row)
    if len(folders) != len(rows):
        raise ValueError(f"--records {' '.join(rows)}: give each as NAME=DIR, each name once")
    found = {name: read_records(folder) for name, folder in folders.items()}
    return {n: header for n, (header, _) in found.items()}, {n: r for n, (_, r) in found.items()}


def first_image_moving(networks: dict[str, Network]) -> list[Picture]:
    """Predictions of all networks on their first test image as it moves pixel by pixel; none where
    a network takes no view of that size, as a file exported for one size."""
    from aa_plugins.command.diagnose import moving
    from aa_plugins.datasets.images import read_image
    from aa_plugins.hosts.interface import SizeRefused

    first = next(iter(networks.values()))
    sample = first.samples(first.default_protocol())[0]
    try:
        return [moving(networks, read_image(sample.file))]
    except SizeRefused as error:
        print(f"no moving picture: {error}")
        return []


def loaded(args: argparse.Namespace) -> dict[str, Network]:
    """Every network with its images, so that all that is wrong is found before one is measured;
    refused where a run would discard the records of another."""
    for name in names_of(args.networks):
        refuse_records(args.out / name, args.resume)
    images = {name: getattr(args, name) for name in ("data", "labels", "annotations", "ignore")}
    return load_networks(args, **images)


def measure_all(args: argparse.Namespace, networks: dict[str, Network]) -> list[str]:
    """Run every network on every view and say where its records are, as NAME=DIR; interrupted,
    --resume goes on."""
    protocol = choose_protocol(args, list(networks.values()))
    print(f"{protocol.label}; records and the report go to {args.out}", flush=True)
    for name, network in networks.items():
        print(f"{name}: {filters_in(network)}", flush=True)
        network.measure(protocol, args.out / name, args.resume, args.num_gpus)
    return [f"{name}={args.out / name}" for name in networks]


def filters_in(network: Network) -> str:
    """How many filters of which kind a network has."""
    from collections import Counter

    from aa_plugins.layers.kinds import kind_of

    counts = Counter(filter(None, map(kind_of, network.model.modules())))
    return ", ".join(f"{n} {kind} filters" for kind, n in counts.items()) or "no filter, plain"


@contextmanager
def quiet(debug: bool) -> Iterator[None]:
    """Within it, hosts log what is wrong alone: mmengine would print the whole config."""
    logging.disable(logging.NOTSET if debug else logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def refuse_records(folder: Path, resume: bool) -> None:
    """Raise ValueError where a run would discard the records of another."""
    from aa_plugins.evaluation.records import record_files

    if not resume and record_files(folder):
        raise ValueError(
            f"{folder} holds records: --resume goes on with them; or name another --out, or remove "
            "them"
        )


def choose_protocol(args: argparse.Namespace, networks: list[Network]) -> Protocol:
    """The command line's protocol, on top of the networks' own at their largest stride."""
    from aa_plugins.evaluation.protocol import Protocol, preset

    asked = json_object("--protocol", args.protocol)
    own = [network.protocol() if "stride" not in asked else {} for network in networks]
    strides = sorted({fields["stride"] for fields in own if "stride" in fields})
    stride = {"stride": strides[-1], "other_strides": tuple(strides[:-1])} if strides else {}
    if args.preset:
        return preset(args.preset, **stride)
    return Protocol.from_dict({**own[0], **stride, **asked})


def json_object(option: str, text: str | None) -> dict[str, Any]:
    """An object in JSON.

    Raises:
        ValueError: for any other text.
    """
    try:
        found = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"{option} {text}: isn't JSON ({error})") from error
    if not isinstance(found, dict):
        example = '{"kind": "pairs", "pairs": 4}'
        raise ValueError(f"{option} {text}: give an object, such as '{example}'")
    return found
