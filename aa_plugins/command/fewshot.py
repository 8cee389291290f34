"""New classes from a few images each, by the frozen features of a classifier.

aa-plugins fewshot timm:resnet50 timm:aa_resnet50 --weights a.pth b.pth --data flowers
aa-plugins fewshot timm:resnet50 --weights pretrained --data flowers --ways 10 --shots 1

The folder holds class folders, called as they may be. An episode draws classes, images to learn
from and images to ask about; the nearest class mean and a fitted linear layer answer.
"""

from __future__ import annotations

import argparse

from aa_plugins.command.networks import add_networks, load_networks
from aa_plugins.command.options import add_out

SIZES = {
    "ways": (5, "classes of an episode"),
    "shots": (5, "images of a class to learn from"),
    "queries": (15, "images of a class to ask about"),
    "episodes": (200, "how many"),
    "seed": (0, "of the episodes"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_networks(parser)
    add_out(parser, "out/fewshot")
    parser.add_argument("--data", required=True, metavar="DIR", help="class folders of images")
    for name, (default, text) in SIZES.items():
        said = f"{text}; {default} by default"
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=said)


def run(args: argparse.Namespace) -> None:
    from aa_plugins.report import Report
    from aa_plugins.report.page import write_json
    from aa_plugins.robustness.few_shot import episodes, features_of, summarise_episodes

    networks = load_networks(args)
    sizes = (args.ways, args.shots, args.queries, args.episodes, args.seed)
    features = {name: features_of(network, args.data) for name, network in networks.items()}
    records = {name: episodes(found, *sizes) for name, found in features.items()}
    results, compared = summarise_episodes(records)
    notes = {"command": " ".join(["aa-plugins fewshot", *args.arguments])}
    report = Report("New classes from a few images", results, compared, notes)
    report.save(args.out, "fewshot")
    write_json(args.out / "records.json", records)
    print(f"{report.text()}\n\nSaved as {args.out}/fewshot.json, .md and .html")
