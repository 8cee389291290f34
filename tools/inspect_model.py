#!/usr/bin/env python
"""What anti-aliasing does to a timm model: the report of its sites, parameters and MACs.

python tools/inspect_model.py resnet50 --aa filter=bank stem=True
"""

from __future__ import annotations

import argparse
import copy
import sys
from typing import Any

import timm
import torch
import yaml

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.cost import count_macs


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="timm model, without aa_")
    parser.add_argument("--aa", nargs="+", default=[], metavar="FIELD=VALUE", help="of AAConfig")
    args = parser.parse_args()
    if args.name.startswith("aa_"):
        parser.error(f"{args.name}: name the plain model, {args.name.removeprefix('aa_')}")
    if not timm.is_model(args.name):
        parser.error(f"timm has no model {args.name!r}: timm.list_models() lists them")
    return args


def aa_config(assignments: list[str]) -> AAConfig:
    """An AAConfig from FIELD=VALUE, the values as in YAML."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        field, separator, value = assignment.partition("=")
        if not separator:
            raise ValueError(f"--aa {assignment}: write FIELD=VALUE, e.g. filter=blur")
        values[field] = yaml.safe_load(value)
    return AAConfig.from_dict(values)


def cost(name: str, config: AAConfig) -> str:
    """The report of a conversion, and what it adds to parameters and MACs, as text."""
    plain = timm.create_model(name).eval()
    model = copy.deepcopy(plain)
    report = antialias(model, config)
    size = timm.get_pretrained_cfg(name).input_size
    counts, macs = [], []
    for network in (plain, model):
        with torch.no_grad(), count_macs(network) as counted:
            network(torch.randn(1, *size))
        macs += counted
        counts.append(sum(p.numel() for p in network.parameters()))
    return "\n".join(
        (
            str(report),
            f"parameters: {counts[0]:,} + {counts[1] - counts[0]:,}",
            f"MACs at {'×'.join(map(str, size))}: {macs[0]:,} + {macs[1] - macs[0]:,}",
        )
    )


if __name__ == "__main__":
    args = parse_args()
    try:
        print(cost(args.name, aa_config(args.aa)))
    except ValueError as error:
        sys.exit(f"error: {error}")
