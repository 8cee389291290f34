"""Options that several subcommands have, so that they are called and explained alike."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aa_plugins.config import AAConfig

NETWORK = "a config, timm:NAME, torchvision:NAME, an .onnx or .xml file or MODULE:FUNCTION"


def add_aa(parser: argparse.ArgumentParser) -> None:
    """`--aa FIELD=VALUE`, read by `aa_config`."""
    parser.add_argument(
        "--aa",
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="fields of AAConfig, such as filter=blur kernel_size=5 stem=True",
    )


def add_out(parser: argparse.ArgumentParser, default: str) -> None:
    """`--out DIR`, where everything goes that a subcommand writes."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(default),
        metavar="DIR",
        help="results; %(default)s by default",
    )


def add_resume(parser: argparse.ArgumentParser) -> None:
    """`--resume`, to go on after an interruption."""
    parser.add_argument("--resume", action="store_true", help="go on where --out stopped")


def add_images(parser: argparse.ArgumentParser) -> None:
    """`--data` and what is known of the images in it, for networks that have no test set."""
    data = parser.add_argument_group("images, for networks without a config")
    data.add_argument("--data", metavar="DIR", help="folder of images, or of class folders")
    data.add_argument("--labels", metavar="DIR", help="folder of label maps (semantic)")
    data.add_argument("--annotations", metavar="FILE", help="in COCO's format (instance)")
    data.add_argument("--ignore", type=int, default=255, metavar="N", help="label without truth")


def assignments(option: str, given: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE as a mapping, values read as YAML.

    Raises:
        ValueError: for anything else.
    """
    import yaml

    values: dict[str, Any] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ValueError(f"{option} {text}: write KEY=VALUE, such as filter=blur")
        try:
            values[key] = float(value) if "e" in value.lower() else yaml.safe_load(value)
        except ValueError:  # YAML takes 1e-4 for text
            values[key] = yaml.safe_load(value)
    return values


def aa_config(given: Sequence[str]) -> AAConfig:
    """The AAConfig that `--aa` describes.

    Raises:
        ValueError: for an unknown field or a value that doesn't fit.
    """
    from aa_plugins.config import AAConfig

    return AAConfig.from_dict(assignments("--aa", given))
