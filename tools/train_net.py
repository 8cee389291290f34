#!/usr/bin/env python
"""Train and test any config: Detectron2's (.yaml, LazyConfig) and MMSegmentation's (.py)."""

from __future__ import annotations

import argparse
import sys

from aa_plugins.hosts import (
    DETECTRON2_YAML,
    MMSEGMENTATION,
    TORCHVISION,
    host_of,
    refuse_foreign_options,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--eval-only", action="store_true", help="test, without training")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--weights", metavar="FILE", help="weights to start from, or to test")
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N")
    host = parser.add_argument_group("MMSegmentation")
    host.add_argument("--work-dir", metavar="DIR", help="logs and checkpoints")
    host.add_argument("--data-root", metavar="DIR", help="folder of every data set of the config")
    host.add_argument("--amp", action="store_true", help="automatic mixed precision")
    host.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    host.add_argument("--launcher", choices=("none", "pytorch", "slurm", "mpi"), default="none")
    host.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    host = parser.add_argument_group("Detectron2")
    host.add_argument("--num-machines", type=int, default=1, metavar="N")
    host.add_argument("--machine-rank", type=int, default=0, metavar="N")
    host.add_argument("--dist-url", default="auto", metavar="URL")
    host.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE (yaml), key=value (lazy)")
    args = parser.parse_args()
    given = {k: v for k, v in vars(args).items() if v != parser.get_default(k) and v != []}
    refuse_foreign_options(host_of(args.config_file), given)
    return args


def main() -> None:
    args = parse_args()
    host = host_of(args.config_file)
    print(f"{args.config_file}: {host}", flush=True)
    if host == TORCHVISION:
        raise ValueError(f"{args.config_file}: only tools/eval_consistency.py takes this")
    if host == MMSEGMENTATION:
        train_mmseg(args)
    else:
        from aa_plugins.detectron2.train import launch

        launch(args, lazy=host != DETECTRON2_YAML)


def train_mmseg(args: argparse.Namespace) -> None:
    from aa_plugins.mmseg.train import main as train

    if args.num_gpus > 1 and args.launcher == "none":
        from torch.distributed.run import main as torchrun

        torchrun(["--nproc_per_node", str(args.num_gpus), *sys.argv, "--launcher", "pytorch"])
        return
    train(args)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")
