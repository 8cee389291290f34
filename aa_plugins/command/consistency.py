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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aa_plugins.command.options import NETWORK, aa_config, add_aa, add_out, add_resume

if TYPE_CHECKING:
    from aa_plugins.evaluation.protocol import Protocol
    from aa_plugins.hosts.interface import Network

COLUMNS = {
    "classification": ("accuracy", "agreement", "controls/same_phase", "aliasing_loss"),
    "semantic": ("mIoU", "mASSC", "controls/same_phase", "aliasing_loss", "fidelity"),
    "instance": (
        "mask/AP/reference",
        "mask/mAISC",
        "mask/controls/same_phase",
        "mask/aliasing_loss",
        "box/AP/reference",
        "box/mAISC",
    ),
}
OWN = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=NETWORK)
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="FILE",
        help="one a network: a file; pretrained downloads timm's or torchvision's; - keeps those "
        "that MODULE:FUNCTION returns",
    )
    add_aa(parser)
    add_out(parser, "out/consistency")
    add_resume(parser)
    data = parser.add_argument_group("images, for networks without a config")
    data.add_argument("--data", metavar="DIR", help="folder of images, or of class folders")
    data.add_argument("--labels", metavar="DIR", help="folder of label maps (semantic)")
    data.add_argument("--annotations", metavar="FILE", help="in COCO's format (instance)")
    data.add_argument("--task", choices=COLUMNS, help="of MODULE:FUNCTION")
    data.add_argument("--classes", type=int, metavar="N", help="of the network")
    data.add_argument("--ignore", type=int, default=255, metavar="N", help="label without truth")
    data.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="of the input")
    data.add_argument("--mean", type=float, nargs=3, metavar="X", help="of RGB in [0, 1]")
    data.add_argument("--std", type=float, nargs=3, metavar="X", help="of RGB in [0, 1]")
    data.add_argument("--device", default="cpu", help="such as cuda")
    config = parser.add_argument_group("configs")
    config.add_argument("--data-root", metavar="DIR", help="folder of the data sets")
    config.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    config.add_argument("--num-gpus", type=int, default=1, metavar="N", help="for Detectron2")
    parser.add_argument(
        "--records",
        nargs="+",
        default=[],
        metavar="NAME=DIR",
        help="compare what test runs have measured, instead of running networks",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--protocol", metavar="JSON", help='such as \'{"kind": "pairs", "pairs": 4}\'')
    how.add_argument("--preset", metavar="NAME", help="zhang, zou, zou-worst, lps or lps-linear")


def run(args: argparse.Namespace) -> None:
    if bool(args.networks) == bool(args.records):
        raise ValueError("give either networks, with --weights, or --records NAME=DIR")
    task, records, protocol = measured(args.records) if args.records else measure(args)
    from aa_plugins.evaluation import classification, instance, semantic
    from aa_plugins.report.comparison import comparison

    of = {"classification": classification, "semantic": semantic, "instance": instance}[task]
    command = " ".join(["aa-plugins consistency", *args.arguments])
    notes = {"command": command, "protocol": protocol.to_dict()}
    title = "Shift consistency"
    report = comparison(title, records, of.summarise, of.compare, COLUMNS[task], notes)
    report.save(args.out, "consistency")
    print(f"{report.text()}\n\nSaved as {args.out}/consistency.json, .md and .html")


def measured(rows: list[str]) -> tuple[str, dict[str, list[dict]], Protocol]:
    """The task, the records that runs have left in folders by name, and the first's protocol."""
    from aa_plugins.evaluation.protocol import Protocol
    from aa_plugins.evaluation.records import read_records

    folders = dict(row.split("=", 1) for row in rows if "=" in row)
    if len(folders) != len(rows):
        raise ValueError(f"--records {' '.join(rows)}: give each as NAME=DIR, each name once")
    found = {name: read_records(folder) for name, folder in folders.items()}
    tasks = {name: task_of(header, records) for name, (header, records) in found.items()}
    if len(set(tasks.values())) > 1:
        raise ValueError(f"records of several tasks ({tasks}): compare those of one")
    header = next(iter(found.values()))[0]
    records = {name: records for name, (_, records) in found.items()}
    return tasks[next(iter(tasks))], records, Protocol.from_dict(header["protocol"])


def task_of(header: dict, records: list[dict]) -> str:
    """The task of records; those without one in their header are older than it."""
    return header.get("task") or ("semantic" if "iou" in records[0] else "instance")


def measure(args: argparse.Namespace) -> tuple[str, dict[str, list[dict]], Protocol]:
    """Run every network on every view; interrupted, --resume goes on.

    All networks are loaded, and with them all that is wrong is found, before one is measured.
    """
    weights = args.weights or [OWN] * len(args.networks)
    if len(weights) != len(args.networks):
        raise ValueError(
            f"{len(args.networks)} networks, but {len(weights)} weights: give one a network, - for "
            "those that MODULE:FUNCTION returns"
        )
    names = names_of(args.networks)
    for name in names:
        refuse_records(args.out / name, args.resume)
    networks = [load(args, network, given) for network, given in zip(args.networks, weights)]
    tasks = {network.task for network in networks}
    if len(tasks) > 1:
        raise ValueError(f"networks of several tasks ({', '.join(sorted(tasks))}): compare in one")
    protocol = choose_protocol(args, networks)
    print(f"{protocol.label}; records and the report go to {args.out}", flush=True)
    records = {
        name: network.measure(protocol, args.out / name, args.resume, args.num_gpus)
        for name, network in zip(names, networks)
    }
    return tasks.pop(), records, protocol


def load(args: argparse.Namespace, network: str, weights: str) -> Network:
    """A network with its weights."""
    from aa_plugins.hosts import Host, host_of
    from aa_plugins.hosts.interface import load_network

    if weights == OWN and host_of(network) is not Host.PLAIN:
        raise ValueError(f"{network} has no weights: name them with --weights")
    names = ("data", "labels", "annotations", "task", "classes", "ignore", "data_root", "device")
    given = {name: getattr(args, name) for name in names}
    given |= {
        name: tuple(value)
        for name in ("size", "mean", "std")
        if (value := getattr(args, name)) is not None
    }
    return load_network(
        network,
        weights=None if weights == OWN else weights,
        aa=aa_config(args.aa) if args.aa else None,
        overrides=tuple(args.cfg_options),
        **given,
    )


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


def names_of(networks: list[str]) -> list[str]:
    """A name for each network: its own without its host or folder, numbered where they repeat."""
    stems = [Path(n).stem if n.endswith((".py", ".yaml", ".yml")) else n for n in networks]
    stems = [stem.rpartition(":")[2] for stem in stems]
    return [
        stem if stems.count(stem) == 1 else f"{stem}-{stems[: i + 1].count(stem)}"
        for i, stem in enumerate(stems)
    ]
