"""A run that trains a classifier of timm from scratch, with or without RandAugment, and measures
its accuracy and consistency: augmentation against filters.

Its data are class folders, `train` and `val`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import v2

from aa_plugins import AAConfig, antialias
from aa_plugins.datasets.images import Photos
from aa_plugins.evaluation import ClassificationConsistency, Protocol, RecordWriter, extract
from experiments.plan import Run

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def execute(run: Run, data: Path, work: Path) -> tuple[Path, dict[str, Any]]:
    """Train and measure.

    Returns:
        The folder of the images' records, and what else was measured.
    """
    from experiments.run import commit

    settings = dict(run.experiment.train)
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    seen, unseen = (Classes(data / split, settings["resize"]) for split in ("train", "val"))
    network = timm.create_model(run.experiment.config.removeprefix("timm:"), num_classes=seen.count)
    config = AAConfig.from_dict(run.aa)
    if config.filter != "none":
        side = settings["crop"]
        antialias(network, config, example=torch.zeros(1, 3, side, side))
    begun = time.process_time()
    train(network, seen, run.experiment.variants[run.variant].get("randaugment"), **settings)
    seconds = round(time.process_time() - begun, 1)
    measure(network, unseen, Protocol.from_dict(dict(run.experiment.protocol)), work / "records")
    size = {"parameters": sum(p.numel() for p in network.parameters())}
    training = {"commit": commit(), "cpu_seconds": seconds, "peak_memory_mib": 0, "resumed": False}
    return work / "records", {"training": training, "size": size, "filters": {}, "host": {}}


class Classes:
    """Images of class folders, resized, held in memory: (3, H, W) uint8, and their classes."""

    def __init__(self, folder: Path, resize: int) -> None:
        photos = Photos(folder)
        names = sorted({path.parent.name for path in photos.files})
        self.count, self.ids = len(names), photos.ids
        self.labels = torch.tensor([names.index(path.parent.name) for path in photos.files])
        small = v2.Compose([v2.Resize(resize), v2.CenterCrop(resize)])
        whole = (torch.from_numpy(photos.read(i)[0].copy()) for i in range(len(photos)))
        self.images = torch.stack([small(pixels.permute(2, 0, 1)) for pixels in whole])


def train(
    network: nn.Module,
    images: Classes,
    randaugment: dict[str, int] | None,
    epochs: int,
    batch: int,
    lr: float,
    crop: int,
    resize: int,
) -> None:
    """SGD with Nesterov's momentum and weight decay, a rate that rises and falls (one cycle);
    random crops and flips, and torchvision's RandAugment where `randaugment` has its arguments."""
    steps = [v2.RandomCrop(crop), v2.RandomHorizontalFlip()]
    if randaugment is not None:
        steps.append(v2.RandAugment(**randaugment))
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    augment = v2.Compose(steps)
    optimizer = torch.optim.SGD(
        network.parameters(), lr, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    total = epochs * -(-len(images.labels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total)
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images.labels)).split(batch):
            inputs = torch.stack([augment(images.images[index]) for index in chosen])
            loss = F.cross_entropy(network(inputs), images.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


def measure(network: nn.Module, images: Classes, protocol: Protocol, folder: Path) -> None:
    """Records of every image in `folder`."""
    scorer = ClassificationConsistency(protocol, images.count)
    prepare = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    with (
        RecordWriter(folder, protocol, {"classes": images.count}, task="classification") as writer,
        torch.no_grad(),
    ):
        for image_id, image, label in zip(images.ids, images.images, images.labels.tolist()):
            pixels = prepare(image)
            plan = protocol.plan(*pixels.shape[-2:], image_id)
            views = torch.stack([extract(pixels, view) for view in plan.views])
            writer.append(scorer.score(plan, network(views), label))
