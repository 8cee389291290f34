"""Train and test any config: Detectron2's (.yaml, LazyConfig) and MMSegmentation's (.py).

aa-plugins train --config-file mmseg/deeplabv3plus_r18_camvid_blur.py --data-root data/camvid
aa-plugins train --config-file detectron2/PennFudan/mask_rcnn_R_18_FPN_blur.yaml SOLVER.MAX_ITER 200
aa-plugins train --config-file mine.py --eval-only --weights work_dirs/mine/iter_552.pth
"""

from __future__ import annotations

import argparse

from aa_plugins.hosts import Host, config_path, host_of

# What one host alone takes, by its name among the parsed arguments, and what the other takes.
MMSEGMENTATIONS = {"launcher": "--num-gpus N"}
DETECTRON2S = {
    "num_machines": "--launcher",
    "machine_rank": "--launcher",
    "dist_url": "--launcher",
    "opts": "--cfg-options KEY=VALUE",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-file",
        required=True,
        metavar="FILE",
        help="a file, or the name of a config that comes with the package",
    )
    parser.add_argument("--eval-only", action="store_true", help="test, without training")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--weights", metavar="FILE", help="weights to start from, or to test")
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N")
    parser.add_argument(
        "--out", "--work-dir", dest="work_dir", metavar="DIR", help="logs and checkpoints"
    )
    parser.add_argument("--data-root", metavar="DIR", help="folder of the data sets of the config")
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    host = parser.add_argument_group("MMSegmentation")
    host.add_argument("--launcher", choices=("none", "pytorch", "slurm", "mpi"), default="none")
    host.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    host = parser.add_argument_group("Detectron2")
    host.add_argument("--num-machines", type=int, default=1, metavar="N")
    host.add_argument("--machine-rank", type=int, default=0, metavar="N")
    host.add_argument("--dist-url", default="auto", metavar="URL")
    host.add_argument(
        "opts", nargs=argparse.REMAINDER, help="KEY VALUE (yaml), key=value (LazyConfig)"
    )
    foreign = {*MMSEGMENTATIONS, *DETECTRON2S}
    parser.set_defaults(usual={name: parser.get_default(name) for name in foreign})


def run(args: argparse.Namespace) -> None:
    host = host_of(args.config_file)
    if host not in (Host.MMSEGMENTATION, Host.DETECTRON2):
        raise ValueError(
            f"--config-file {args.config_file}: {host.title} has no training of its own; convert "
            "the network with aa_plugins.antialias and train it with your own code"
        )
    args.config_file = str(config_path(args.config_file))
    print(f"{args.config_file}: {host.title}", flush=True)
    if host is Host.MMSEGMENTATION:
        _refuse(args, host, DETECTRON2S)
        _train_mmsegmentation(args)
    else:
        _refuse(args, host, MMSEGMENTATIONS)
        from aa_plugins.detectron2.train import launch

        launch(args, lazy=args.config_file.endswith(".py"))


def _refuse(args: argparse.Namespace, host: Host, foreign: dict[str, str]) -> None:
    """Raise ValueError where something is given that only the other host takes."""
    for name, instead in foreign.items():
        value = getattr(args, name)
        if value != args.usual[name] and value != []:
            given = " ".join(value) if name == "opts" else f"--{name.replace('_', '-')} {value}"
            raise ValueError(f"{given}: {host.title} doesn't take this, but {instead}")


def _train_mmsegmentation(args: argparse.Namespace) -> None:
    if args.num_gpus > 1 and args.launcher == "none":
        from torch.distributed.run import main as torchrun

        command = ["-m", "aa_plugins", "train", *args.arguments, "--launcher", "pytorch"]
        torchrun(["--nproc_per_node", str(args.num_gpus), *command])
        return
    from aa_plugins.mmseg.train import main

    main(args)
