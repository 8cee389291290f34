"""A classifier of photos on videos: accuracy per frame, pm-k accuracy, flips along a clip.

ImageNet-VID as it comes (Data/VID, Annotations/VID), its 30 classes among ImageNet's 1000:
  aa-plugins clips timm:resnet50 timm:aa_resnet50 --weights a.pth b.pth --videos ILSVRC2015
Any clips, videos or folders of frames, in folders of their class ("207_retriever/walk.mp4"):
  aa-plugins clips timm:resnet50 --weights pretrained --videos clips --every 5
"""

from __future__ import annotations

import argparse

from aa_plugins.command.consistency import quiet, refuse_records
from aa_plugins.command.networks import add_networks, load_networks, names_of
from aa_plugins.command.options import add_out, add_resume

COLUMNS = ("accuracy", "pm/1", "pm/5", "pm/10", "agreement")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_networks(parser)
    add_out(parser, "out/clips")
    add_resume(parser)
    parser.add_argument(
        "--videos", required=True, metavar="DIR", help="ImageNet-VID, or CLASS/CLIP"
    )
    parser.add_argument("--split", default="val", help="of ImageNet-VID; %(default)s by default")
    parser.add_argument("--class-map", metavar="JSON", help="of ImageNet-VID: {WNID: [classes]}")
    parser.add_argument("--frames", type=int, metavar="N", help="of a clip, at most")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="keep one of N frames")


def run(args: argparse.Namespace) -> None:
    from aa_plugins.report import Report
    from aa_plugins.robustness.clips import LabelledClips, measure_clips, summarise_clips

    for name in names_of(args.networks):
        refuse_records(args.out / name, args.resume)
    with quiet(args.debug):
        networks = load_networks(args)
        records = {}
        for name, network in networks.items():
            classes = getattr(network, "num_classes", 0)
            cut = {"frames": args.frames, "every": args.every}
            clips = LabelledClips(args.videos, classes, args.split, args.class_map, **cut)
            records[name] = measure_clips(network, clips, args.out / name, args.resume)
    results, compared = summarise_clips(records)
    notes = {"command": " ".join(["aa-plugins clips", *args.arguments])}
    report = Report("On the frames of videos", results, compared, notes, metrics=COLUMNS)
    report.save(args.out, "clips")
    print(f"{report.text()}\n\nSaved as {args.out}/clips.json, .md and .html")
