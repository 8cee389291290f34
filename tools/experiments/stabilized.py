"""A run that stabilizes a classifier of ImageNet without labels, and measures it.

Its data are folders INDEX_WNID of images, `train` to stabilize on and `val` to measure on; INDEX
counts the 1000 classes as timm does. Every tenth training image is held out.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import timm
import torch
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.evaluation import ClassificationConsistency, Protocol, RecordWriter, extract
from aa_plugins.evaluation.protocol import preset
from aa_plugins.training import PhaseAverage, Settings, stabilize, transfer_statistics
from aa_plugins.training.batches import samples
from efficientnet_lite import as_timm, package_file
from experiments.plan import Run

HELD_OUT = 10  # every so many-th image
CLASSES = 1000


class Images(torch.utils.data.Dataset):
    """RGB images as tf_efficientnet_lite takes them, (3, H, W), and their classes."""

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise FileNotFoundError("no images: --data-root is the folder of all data sets")
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels = cv2.imread(str(self.paths[index]))[..., ::-1].copy()
        return (torch.from_numpy(pixels).permute(2, 0, 1).float() - 127) / 128

    def label(self, index: int) -> int:
        return int(self.paths[index].parent.name.split("_")[0])


def execute(run: Run, data_root: Path, work: Path) -> tuple[Path, dict[str, Any]]:
    """Stabilize and measure, going on where an earlier attempt stopped.

    Returns:
        The folder of the images' records, and what else was measured.
    """
    from experiments.run import commit

    data = data_root / run.experiment.data
    begun, cpu = time.monotonic(), time.process_time()
    network, report = network_and_report(run, data, work)
    training = {
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "resumed": False,
        "commit": commit(),
    }
    size = {"parameters": sum(p.numel() for p in network.parameters())}
    if run.phases > 1:
        network = PhaseAverage(network, run.stabilize["stride"], run.phases).eval()
    begun, cpu = time.monotonic(), time.process_time()
    records = work / "consistency"
    measure(network, Images(sorted(data.glob("val/*/*"))), _protocol(run), records)
    evaluation = {
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "forward_passes": run.phases,
    }
    found = {"training": training, "evaluation": evaluation, "size": size, "filters": {}}
    return records, {**found, "host": {}, "stabilize": report}


def measure(network: nn.Module, images: Images, protocol: Protocol, folder: Path) -> None:
    """Records of every image in `folder`; what is there of the same protocol is kept."""
    scorer = ClassificationConsistency(protocol, CLASSES)
    identity = {"classes": CLASSES}
    with (
        RecordWriter(folder, protocol, identity, task="classification", resume=True) as writer,
        torch.no_grad(),
    ):
        for index, path in enumerate(images.paths):
            if path.stem in writer.done:
                continue
            image = images[index]
            plan = protocol.plan(*image.shape[-2:], path.stem)
            views = torch.stack([extract(image, view) for view in plan.views])
            writer.append(scorer.score(plan, network(views), images.label(index)))


def network_and_report(run: Run, data: Path, work: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The variant's network, in eval mode, and what stabilizing it reported."""
    name = run.experiment.config.removeprefix("timm:")
    version = name.rsplit("_", 1)[-1]
    teacher = timm.create_model(name)
    packaged = torch.load(package_file(version), map_location="cpu", weights_only=True)
    teacher.load_state_dict(as_timm(packaged, version))
    student = deepcopy(teacher.eval())
    config, fields = AAConfig.from_dict(run.aa), run.stabilize
    torch.manual_seed(run.seed)
    torch.set_num_threads(1)
    if config.filter != "none":
        antialias(student, config, example=torch.zeros(1, 3, *fields["size"]))
    paths = sorted(data.glob("train/*/*"))
    seen = Images([path for index, path in enumerate(paths) if index % HELD_OUT])
    unseen = Images(paths[::HELD_OUT])
    if not fields.get("steps", 1):
        settings = Settings(**{**fields, "steps": 1})
        transfer_statistics(student, teacher, samples(seen, settings))
        return student, {}
    report = stabilize(student, teacher, seen, Settings(**fields), unseen, work, resume=True)
    torch.save({"state_dict": student.state_dict()}, work / "stabilized.pth")
    rows = {"teacher": report.teacher, "before": report.before, "after": report.after}
    summary = {name: row.to_dict() for name, row in rows.items()}
    return student, {**summary, "steps": report.steps, "kept": report.kept}


def _protocol(run: Run) -> Protocol:
    fields = dict(run.experiment.protocol)
    return preset(fields.pop("preset"), **fields)
