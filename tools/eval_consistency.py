#!/usr/bin/env python
"""Shift consistency of one model, or of several on the same images with paired differences."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from aa_plugins.evaluation import instance, semantic
from aa_plugins.evaluation.protocol import Protocol, preset
from aa_plugins.evaluation.records import read_records
from aa_plugins.hosts import MMSEGMENTATION, TORCHVISION, host_of
from aa_plugins.report.comparison import comparison

SEMANTIC_COLUMNS = ("mIoU", "mASSC", "controls/same_phase", "aliasing_loss", "fidelity")
INSTANCE_COLUMNS = (
    "mask/AP/reference",
    "mask/mAISC",
    "mask/controls/same_phase",
    "mask/aliasing_loss",
    "box/AP/reference",
    "box/mAISC",
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config-file",
        nargs="+",
        default=[],
        metavar="FILE",
        help="of MMSegmentation or Detectron2, or torchvision:maskrcnn_resnet50_fpn and such",
    )
    parser.add_argument("--weights", nargs="+", default=[], metavar="FILE", help="one a config")
    parser.add_argument(
        "--records",
        nargs="+",
        default=[],
        metavar="NAME=DIR",
        help="compare what test runs have measured, instead of running models",
    )
    parser.add_argument("--out", default="out/consistency", metavar="DIR", help="%(default)s")
    parser.add_argument("--resume", action="store_true", help="keep the images that are done")
    parser.add_argument("--data-root", metavar="DIR", help="folder of the data sets")
    parser.add_argument(
        "--num-gpus", type=int, default=1, metavar="N", help="processes, for models of Detectron2"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--protocol", metavar="JSON", help='such as \'{"kind": "pairs", "pairs": 4}\'')
    how.add_argument("--preset", metavar="NAME", help="zhang, zou, zou-worst, lps or lps-linear")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    if len(args.config_file) != len(args.weights):
        parser.error(
            f"{len(args.config_file)} configs, but {len(args.weights)} weights: give one a config"
        )
    if bool(args.config_file) == bool(args.records):
        parser.error("give either --config-file and --weights, or --records")
    return args


def main() -> None:
    args = parse_args()
    records, protocol = measured(args.records) if args.records else measure(args)
    semantic_task = all("classes" in record for found in records.values() for record in found)
    task, columns = (semantic, SEMANTIC_COLUMNS) if semantic_task else (instance, INSTANCE_COLUMNS)
    notes = {"command": " ".join(sys.argv), "protocol": protocol.to_dict()}
    report = comparison("Shift consistency", records, task.summarise, task.compare, columns, notes)
    report.save(args.out, "consistency")
    print(f"{report.text()}\n\nSaved as {args.out}/consistency.json, .md and .html")


def measured(rows: list[str]) -> tuple[dict[str, list[dict]], Protocol]:
    """Records that runs have left in folders, by name, and the protocol of the first."""
    folders = dict(row.split("=", 1) for row in rows if "=" in row)
    if len(folders) != len(rows):
        raise ValueError(f"--records {' '.join(rows)}: give each as NAME=DIR, each name once")
    found = {name: read_records(folder) for name, folder in folders.items()}
    headers = [header for header, _ in found.values()]
    records = {name: records for name, (_, records) in found.items()}
    return records, Protocol.from_dict(headers[0]["protocol"])


def measure(args: argparse.Namespace) -> tuple[dict[str, list[dict]], Protocol]:
    """Run every model on every view; interrupted, --resume goes on."""
    hosts = {host_of(config).split()[0] for config in args.config_file}
    if len(hosts) > 1:
        raise ValueError(f"configs of several hosts ({', '.join(sorted(hosts))}): compare in one")
    if hosts == {MMSEGMENTATION}:
        from aa_plugins.mmseg import evaluate as host
    elif hosts == {TORCHVISION}:
        from aa_plugins.torchvision import detection as host
    else:
        if args.data_root:  # Detectron2 reads it on import, for its own datasets
            os.environ["DETECTRON2_DATASETS"] = args.data_root
        from aa_plugins.detectron2 import evaluate as host
    if args.num_gpus > 1 and hosts & {MMSEGMENTATION, TORCHVISION}:
        raise ValueError(f"--num-gpus {args.num_gpus} is for models of Detectron2: leave it out")
    processes = {"processes": args.num_gpus} if args.num_gpus > 1 else {}
    protocol = choose_protocol(args, host.protocol_of)
    if hosts == {MMSEGMENTATION}:  # all of them, before the first is run
        for config, weights in zip(args.config_file, args.weights):
            host.check_inputs(config, weights, args.data_root, args.cfg_options)
    records = {
        name: host.evaluate(
            config,
            weights,
            protocol,
            Path(args.out) / name,
            data_root=args.data_root,
            overrides=args.cfg_options,
            resume=args.resume,
            **processes,
        )
        for name, config, weights in zip(names_of(args), args.config_file, args.weights)
    }
    return records, protocol


def choose_protocol(args: argparse.Namespace, protocol_of) -> Protocol:
    """The command line's protocol, on top of the configs' own at their largest stride."""
    own = [protocol_of(config) for config in args.config_file]
    strides = sorted({fields["stride"] for fields in own})
    stride = {"stride": strides[-1], "other_strides": tuple(strides[:-1])}
    if args.preset:
        return preset(args.preset, **stride)
    return Protocol.from_dict({**own[0], **stride, **json.loads(args.protocol or "{}")})


def names_of(args: argparse.Namespace) -> list[str]:
    """A name for each model: its config's, numbered where configs repeat."""
    stems = [Path(config).stem.removeprefix("torchvision:") for config in args.config_file]
    return [
        stem if stems.count(stem) == 1 else f"{stem}-{stems[: i + 1].count(stem)}"
        for i, stem in enumerate(stems)
    ]


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")
