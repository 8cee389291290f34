"""Networks that a subcommand is given by name, with what belongs to them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aa_plugins.command.options import NETWORK, aa_config, add_aa

if TYPE_CHECKING:
    from aa_plugins.hosts.interface import Network

ENDINGS = (".py", ".yaml", ".yml", ".onnx", ".xml")  # of networks that are files
OWN = "-"


def add_networks(parser: argparse.ArgumentParser, number: str = "+") -> None:
    """`NETWORK... --weights FILE...`, and how they are built and fed; read by `load_networks`.

    Args:
        number: argparse's nargs of the networks.
    """
    parser.add_argument("networks", nargs=number, metavar="NETWORK", help=NETWORK)
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="FILE",
        help="one a network: a file; pretrained downloads timm's or torchvision's; - keeps those "
        "that MODULE:FUNCTION returns",
    )
    add_aa(parser)
    parser.add_argument("--device", default="cpu", help="such as cuda")
    plain = parser.add_argument_group("networks without a config")
    plain.add_argument("--task", help="of MODULE:FUNCTION: classification, semantic or instance")
    plain.add_argument("--classes", type=int, metavar="N", help="of the network")
    plain.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="of the input")
    plain.add_argument("--mean", type=float, nargs=3, metavar="X", help="of RGB in [0, 1]")
    plain.add_argument("--std", type=float, nargs=3, metavar="X", help="of RGB in [0, 1]")
    config = parser.add_argument_group("configs")
    config.add_argument("--data-root", metavar="DIR", help="folder of the data sets")
    config.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")


def load_networks(args: argparse.Namespace, **images: Any) -> dict[str, Network]:
    """Every network with its weights, by name; what is wrong with one is found now.

    Args:
        images: further fields of a request, such as `data`.

    Raises:
        ValueError: where weights are missing, or tasks differ.
    """
    weights = args.weights or [OWN] * len(args.networks)
    if len(weights) != len(args.networks):
        raise ValueError(
            f"{len(args.networks)} networks, but {len(weights)} weights: give one a network, - for "
            "those that MODULE:FUNCTION returns"
        )
    given = zip(names_of(args.networks), args.networks, weights)
    networks = {name: _load(args, network, file, images) for name, network, file in given}
    task_of_all(networks)
    return networks


def refuse_files(networks: list[str], what: str) -> None:
    """Raise ValueError for a network in an exported file, whose layers nothing can be done with.

    Args:
        what: is refused, as "diagnosed".
    """
    from aa_plugins.hosts import Host, host_of

    for network in networks:
        if host_of(network) is Host.EXPORTED:
            raise ValueError(
                f"{network} can't be {what}, as the layers of an exported file can't be reached: "
                "take the network that it was exported from; consistency, flicker and report run it"
            )


def task_of_all(networks: Mapping[str, Network]) -> str:
    """The task of all networks.

    Raises:
        ValueError: where they differ.
    """
    tasks = sorted({network.task for network in networks.values()})
    if len(tasks) > 1:
        raise ValueError(f"networks of several tasks ({', '.join(tasks)}): compare in one")
    return tasks[0]


def names_of(networks: list[str]) -> list[str]:
    """A name for each network: its own without its host or folder, numbered where they repeat."""
    stems = [Path(n).stem if n.endswith(ENDINGS) else n for n in networks]
    stems = [stem.rpartition(":")[2] for stem in stems]
    return [
        stem if stems.count(stem) == 1 else f"{stem}-{stems[: i + 1].count(stem)}"
        for i, stem in enumerate(stems)
    ]


def _load(args: argparse.Namespace, network: str, weights: str, images: dict) -> Network:
    from aa_plugins.hosts import Host, host_of
    from aa_plugins.hosts.interface import load_network

    if weights == OWN and host_of(network) not in (Host.PLAIN, Host.EXPORTED):
        raise ValueError(f"{network} has no weights: name them with --weights")
    given = {name: getattr(args, name) for name in ("task", "classes", "data_root", "device")}
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
        **images,
    )
