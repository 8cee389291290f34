"""What a filter does to a network: a row a place, and what it adds to parameters and MACs.

aa-plugins inspect timm:resnet50 --aa filter=bank stem=True
aa-plugins inspect torchvision:fcn_resnet50
aa-plugins inspect shop.nets:build --task semantic --aa filter=blur --size 256 512
aa-plugins inspect mmseg/deeplabv3plus_r18_camvid_adaptive.py
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from aa_plugins.command.networks import refuse_files
from aa_plugins.command.options import NETWORK, aa_config, add_aa

if TYPE_CHECKING:
    from aa_plugins.config import AAConfig
    from aa_plugins.hosts.interface import Network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", help=NETWORK)
    add_aa(parser)
    parser.add_argument("--task", default="classification", help="of MODULE:FUNCTION")
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="of the input in pixels; by default the network's own, or 224 224",
    )


def run(args: argparse.Namespace) -> None:
    config = aa_config(args.aa)
    refuse_files([args.network], "inspected")
    from aa_plugins.hosts import Host, host_of
    from aa_plugins.hosts.interface import load_network

    options = {"task": args.task} if host_of(args.network) is Host.PLAIN else {}
    if args.size:
        options["size"] = tuple(args.size)
    network = load_network(args.network, **options)
    found = filters(network)
    if found and args.aa:
        raise ValueError(f"{args.network} is converted already: leave --aa out")
    print(found or conversion(network, config))


def filters(network: Network) -> str:
    """What a network that is converted already was converted to; empty for a plain one."""
    from aa_plugins.layers.kinds import kind_of

    named = list(network.model.named_modules())
    if reports := [str(m.aa_report) for _, m in named if hasattr(m, "aa_report")]:
        return "\n".join(reports)
    return "\n".join(f"{name}: {module}" for name, module in named if kind_of(module))


def conversion(network: Network, config: AAConfig) -> str:
    """The report of a conversion, and what it adds to parameters and MACs, as text."""
    import copy

    import torch

    from aa_plugins.diagnostics.cost import count_macs
    from aa_plugins.surgery import antialias

    example, plain = network.example(), network.core
    model = copy.deepcopy(plain)
    report = antialias(model, config)
    parameters, macs = [], []
    for one in (plain, model):
        parameters.append(sum(p.numel() for p in one.parameters()))
        with torch.no_grad(), count_macs(one) as counted:
            one(example)
        macs += counted
    return (
        f"{report}\n"
        f"parameters: {parameters[0]:,} + {parameters[1] - parameters[0]:,}\n"
        f"MACs at {'×'.join(map(str, example.shape[1:]))}: {macs[0]:,} + {macs[1] - macs[0]:,}"
    )
