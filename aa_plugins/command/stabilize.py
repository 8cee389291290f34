"""Make a trained network shift consistent, without labels: from a folder of photos, or a video.

aa-plugins stabilize timm:resnet18 --weights r18.pth --aa filter=adaptive --photos photos
aa-plugins stabilize mine.py --weights mine.pth --photos frames --set steps=400 views=3
aa-plugins stabilize mask_rcnn_blur.yaml --weights model_final.pth --photos photos
aa-plugins stabilize shop.nets:build --task semantic --aa filter=blur --photos photos

The teacher is the network without filters. A config's own filters are put in, the others' by --aa.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aa_plugins.command.networks import add_networks, load_networks, refuse_files
from aa_plugins.command.options import add_out, add_resume, assignments

if TYPE_CHECKING:
    import torch

    from aa_plugins.hosts.interface import Network
    from aa_plugins.training import Objective, Settings

HELD_OUT = 10  # every so many-th photo decides when to stop
WEIGHTS = "stabilized.pth"
# Of hosts whose configs say themselves how a network is converted.
WITHOUT_FILTERS = {
    "MMSEGMENTATION": ("model.backbone.aa.filter=none",),
    "DETECTRON2": ("MODEL.AA.FILTER=none",),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_networks(parser, 1)
    parser.add_argument(
        "--photos", required=True, metavar="PATH", help="folder of any photos, or a video file"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="fields of aa_plugins.training.Settings, such as steps=400 train=filters seed=1",
    )
    add_out(parser, "out/stabilize")
    add_resume(parser)


def run(args: argparse.Namespace) -> None:
    import torch

    from aa_plugins.datasets.clips import VIDEOS, Stills
    from aa_plugins.datasets.images import Photos
    from aa_plugins.hosts import Host, host_of
    from aa_plugins.training import stabilize

    refuse_files(args.networks, "stabilized")
    is_video = Path(args.photos).suffix.lower() in VIDEOS
    photos = Stills(args.photos) if is_video else Photos(args.photos)
    student, teacher = load_pair(args)
    settings = settings_of(args, student, student.prepared(photos.read(0)[0]).shape[-2:])
    seen, unseen = (Prepared(student, photos, settings, held_out) for held_out in (False, True))
    pair = student.trainable(), teacher.trainable()
    objective = objective_of(student.task, pair[0])
    options = {"held_out": unseen, "folder": args.out, "resume": args.resume}
    report = stabilize(*pair, seen, settings, objective=objective, **options)
    args.out.mkdir(parents=True, exist_ok=True)
    # Detectron2 reads "model", all others "state_dict".
    key = "model" if host_of(args.networks[0]) is Host.DETECTRON2 else "state_dict"
    torch.save({key: student.model.state_dict()}, args.out / WEIGHTS)
    (args.out / "report.json").write_text(json.dumps(report.to_dict(), indent=1))
    print(f"{report}\n\nSaved as {args.out / WEIGHTS}, to be loaded as any weights")


def objective_of(task: str, network: Any) -> Objective:
    """Of a detector its heads, where they can be asked about boxes, else its own losses."""
    from aa_plugins.training import Classes, Detections, Heads

    if task != "instance":
        return Classes()
    return Heads() if hasattr(network, "answers") else Detections()


def load_pair(args: argparse.Namespace) -> tuple[Network, Network]:
    """The network with filters, and the same without.

    Raises:
        ValueError: for a LazyConfig, which may put its filters anywhere.
    """
    from aa_plugins.hosts import Host, config_path, host_of

    host = host_of(args.networks[0])
    if host is Host.DETECTRON2 and config_path(args.networks[0]).suffix == ".py":
        raise ValueError(
            f"{args.networks[0]} is a LazyConfig, whose network without filters isn't known: build "
            "both and call aa_plugins.training.stabilize"
        )
    (student,) = load_networks(args).values()
    plain = argparse.Namespace(**vars(args))
    plain.aa = []
    plain.cfg_options = [*args.cfg_options, *WITHOUT_FILTERS.get(host.name, ())]
    (teacher,) = load_networks(plain).values()
    return student, teacher


def settings_of(args: argparse.Namespace, network: Network, size: tuple[int, int]) -> Any:
    """Settings that fit the network, and what --set changes.

    Args:
        size: of a prepared photo; views are the largest multiple of the stride that can move in it,
            but a classifier's as large as those it is tested on: some take no other size.
    """
    from aa_plugins.training import Settings

    stride = network.stride
    if network.task == "instance":  # whose images have one height or width in common, not both
        size = (min(size), min(size))
    views = [(side - stride + 1) // stride * stride for side in size]
    if network.task == "classification":
        views = [part.stop - part.start for part in network.window(*size)]
    given = {"stride": stride, "size": views, **assignments("--set", args.set)}
    known = Settings.__dataclass_fields__
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"--set {unknown[0]}: known are {', '.join(known)}")
    return Settings(**given)


class Prepared:
    """Photos as a network gets them, (3, H, W): the held-out ones, or the others.

    Images have no size in common: those smaller than a window are enlarged until it fits in.
    """

    def __init__(self, network: Network, photos: Any, settings: Settings, held_out: bool) -> None:
        self.network, self.photos, self.settings = network, photos, settings
        self.indices = [i for i in range(len(photos)) if (i % HELD_OUT == 0) == held_out]
        if not self.indices:
            raise ValueError(f"{len(photos)} photos are too few: give at least 2")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> torch.Tensor:
        from torch.nn.functional import interpolate

        image = self.network.prepared(self.photos.read(self.indices[index])[0])
        sides = zip(self.settings.window, image.shape[-2:])
        scale = max(needed / there for needed, there in sides)
        if scale <= 1:
            return image
        size = [math.ceil(scale * side) for side in image.shape[-2:]]
        resized = interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0]
        return resized.to(image.dtype)
