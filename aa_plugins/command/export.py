"""Write a network for a runtime: ONNX (.onnx), OpenVINO (.xml) or a program of torch.export (.pt2).

aa-plugins export timm:aa_resnet50 --weights resnet50.pth --out resnet50.onnx
aa-plugins export timm:resnet50 --weights resnet50.pth --aa filter=blur --out resnet50.xml
aa-plugins export mmseg/deeplabv3plus_r18_camvid_blur.py --weights blur.pth --out blur.onnx

The file takes normalised images (N, 3, H, W). A classifier gives its scores, a segmentor those of
every pixel of the image; of a detector it holds the backbone with its pyramid.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from aa_plugins.command.networks import add_networks, load_networks, refuse_files

if TYPE_CHECKING:
    from torch import nn

    from aa_plugins.hosts.interface import Network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_networks(parser, 1)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="what to write")
    parser.add_argument(
        "--fixed", action="store_true", help="for one image of the network's own size alone"
    )


def run(args: argparse.Namespace) -> None:
    from aa_plugins.export import export
    from aa_plugins.export.formats import format_of

    refuse_files(args.networks, "exported")
    format_of(args.out)  # before networks are loaded
    (network,) = load_networks(args).values()
    print(export(deployed(network), args.out, network.example(), args.fixed))


def deployed(network: Network) -> nn.Module:
    """What is exported of a network."""
    from aa_plugins.hosts.module import PixelScores

    return PixelScores(network.model) if network.task == "semantic" else network.core
