"""Everything about networks on one page: how much they flicker, where and why, what would help.

aa-plugins report timm:resnet50 timm:aa_resnet50 --weights plain.pth aa.pth --photos photos
aa-plugins report A.py B.py --weights a.pth b.pth --photos photos --data-root data/camvid
aa-plugins report plain.onnx blur.onnx --photos photos

Numbers are of a config's own test set, and of the photos for other networks. Layers are looked into
but for exported files, whose predictions alone can be.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from aa_plugins.command import consistency
from aa_plugins.command.diagnose import causes, examine, moving

if TYPE_CHECKING:
    from aa_plugins.report.elements import Page

HEADLINES = {"semantic": "mASSC", "classification": "agreement", "instance": "box/mAISC"}
WHAT = {
    "semantic": "Per cent of pixels that keep their class",
    "classification": "Per cent of views that keep their class",
    "instance": "Per cent by which instances agree",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    consistency.add_arguments(parser)
    parser.add_argument("--photos", required=True, metavar="DIR", help="folder of any photos")
    parser.add_argument("--images", type=int, default=8, metavar="N", help="of them looked into")


def run(args: argparse.Namespace) -> None:
    from aa_plugins.datasets.images import Photos
    from aa_plugins.hosts import Host, host_of
    from aa_plugins.report import render

    if args.records or not args.networks:
        raise ValueError("give networks: consistency compares records")
    if args.images < 1:
        raise ValueError(f"--images {args.images}: give 1 or more")
    photos = Photos(args.photos)
    hosts = [host_of(network) for network in args.networks]
    if not {Host.MMSEGMENTATION, Host.DETECTRON2} & set(hosts) and args.data is None:
        args.data = args.photos
    with consistency.quiet(args.debug):
        networks = consistency.loaded(args)
        rows = consistency.measure_all(args, networks)
    pictures = [photos.read(index)[0] for index in range(min(args.images, len(photos)))]
    film = moving(networks, pictures[0])
    found = {
        name: examine(name, network, pictures)
        for (name, network), host in zip(networks.items(), hosts)
        if host is not Host.EXPORTED
    }
    page = page_of(args, rows, film, causes(found) if found else [])
    path = args.out / "report.html"
    path.write_text(render.html(page), encoding="utf-8")
    print(f"{page.verdict}\n\nSaved as {path}")


def page_of(args: argparse.Namespace, rows: list[str], film, causes: list) -> Page:
    from aa_plugins.evaluation.sequences import placed
    from aa_plugins.evaluation.tasks import task_of
    from aa_plugins.report.comparison import comparison
    from aa_plugins.report.elements import Page, Section

    headers, records = consistency.read(rows)
    records = {name: placed(found, args.sequences) for name, found in records.items()}
    task = task_of(headers)
    notes = {
        "command": " ".join(["aa-plugins report", *args.arguments]),
        "protocol": next(iter(headers.values()))["protocol"],
    }
    left_out = {name: header["left_out"] for name, header in headers.items() if header["left_out"]}
    if left_out:
        notes["left_out"] = left_out
    report = comparison("How much it flickers", records, task, notes=notes)
    numbers = report.page().sections
    if not causes:
        text = "Layers of an exported file can't be looked into: this page shows predictions alone."
        causes = [Section("Where it comes from", text)]
    sections = [Section("As the image moves", "", [film]), *causes, *numbers]
    return Page("What flickers, and why", verdict(task.name, report.results), sections, notes)


def verdict(task: str, results: dict) -> str:
    """How far each network agrees with itself, in one sentence with intervals."""
    from aa_plugins.report.table import find

    told = []
    for name, tree in results.items():
        entry = find(tree, HEADLINES[task]) or {}
        if entry.get("value") is not None:
            ends = "" if entry["low"] is None else f" [{entry['low']:.2f}, {entry['high']:.2f}]"
            told.append(f"{name} {entry['value']:.2f}{ends}")
    what = f"{WHAT[task]} as the image moves by a few pixels"
    return f"{what}: {'; '.join(told) or 'nothing was found to compare'} (95 % intervals)."
