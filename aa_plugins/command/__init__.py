"""`aa-plugins`: one file a subcommand, and a row here. Nothing heavy is imported before it runs.

A subcommand's module has a docstring (what it does, then examples), `add_arguments(parser)` and
`run(args)`, where `args.arguments` are those that were parsed. Errors are one line and end with 1,
a wrong command line ends with 2, an interruption with 130.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module

# The subcommand, whose module has its name, and what it does.
COMMANDS = {
    "inspect": "what a filter does to a network: places, parameters, multiply-accumulates",
    "train": "train and test a config of MMSegmentation or Detectron2",
    "consistency": "how far predictions change when the image moves by pixels",
    "stabilize": "make a trained network shift consistent, from photos without labels",
    "diagnose": "why a network flickers, where, and what would help",
    "report": "all of it on one page: how much, where, why, and what would help",
    "export": "write a network for ONNX Runtime, OpenVINO or torch.export, and check the file",
    "robustness": "corrupted images, missing frequencies, the worst shift: what is left",
    "clips": "a classifier of photos on labelled videos, frame by frame",
    "fewshot": "new classes from a few images, by the features of a classifier",
    "flicker": "how much predictions flicker from frame to frame of a video",
}
ERROR, INTERRUPTED = 1, 130
EPILOG = """\
for example:
  aa-plugins inspect timm:resnet50 --aa filter=blur
  aa-plugins train --config-file mmseg/deeplabv3plus_r18_camvid_blur.py --data-root data/camvid
  aa-plugins consistency timm:aa_resnet50 --weights resnet50.pth --data photos

aa-plugins COMMAND --help has more. A network is a config (a file, or the name of one that comes
with the package), timm:NAME, torchvision:NAME, an .onnx or .xml file or MODULE:FUNCTION. Ends with
0; with 1 after an error, 2 after a wrong command line, 130 where it was interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand and end the process with its exit code.

    Args:
        arguments: of the command line, by default those of this process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] not in COMMANDS:
        overview().parse_args(arguments)  # ends here, with help or an error
    sys.exit(run(arguments[0], arguments[1:]))


def run(name: str, arguments: Sequence[str], prog: str | None = None) -> int:
    """Run the subcommand `name`; its exit code.

    Args:
        prog: what the help calls it, "aa-plugins NAME" by default.
    """
    module = import_module(f"{__name__}.{name}")
    parser = argparse.ArgumentParser(
        prog=prog or f"aa-plugins {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the trace of an error")
    args = parser.parse_args(arguments)
    args.arguments = list(arguments)
    if not args.debug:  # of the hosts' own libraries: ours are logged
        warnings.simplefilter("ignore")
    try:
        return module.run(args) or 0
    except KeyboardInterrupt:
        hint = ": the same command with --resume goes on" if "resume" in args else ""
        print(f"\ninterrupted{hint}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = open(os.devnull, "w")
        return ERROR
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: {describe(error)}", file=sys.stderr)
        return ERROR


def describe(error: Exception) -> str:
    """One line of an error: what we say ourselves, or the type and the first line of another's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, (ValueError, OSError, ModuleNotFoundError)) and lines:
        return " ".join(lines)
    return f"{type(error).__name__}: {' '.join(lines[:1])} (--debug shows the trace)"


def overview() -> argparse.ArgumentParser:
    """The parser of the command without a subcommand."""
    parser = argparse.ArgumentParser(
        prog="aa-plugins",
        description="Adaptive anti-aliasing for networks, and what it changes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text)
    return parser
