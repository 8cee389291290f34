"""Stabilizing a segmentor of MMSegmentation on its config's training images, without labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from torch import nn

from aa_plugins.mmseg.runs import load_config, read_checkpoint
from aa_plugins.surgery import load_weights
from aa_plugins.training import Report, Settings, stabilize

LABEL_STEPS = ("LoadAnnotations", "CheckLabels")


class Logits(nn.Module):
    """A segmentor as a module of images: (N, 3, H, W) → logits at the stride of its head."""

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.segmentor(images, mode="tensor")


class Inputs(torch.utils.data.Dataset):
    """Images as a config's network takes them at test time, (3, H, W), normalised; no labels.

    Args:
        cfg: with a `data_preprocessor`, and the pipeline of its test.
        paths: of the images.
    """

    def __init__(self, cfg: Config, paths: Sequence[str]) -> None:
        steps = [s for s in cfg.test_dataloader.dataset.pipeline if s["type"] not in LABEL_STEPS]
        self.load = Compose(steps)
        self.normalise = MODELS.build({**cfg.model.data_preprocessor, "size": None})
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        sample = self.load({"img_path": self.paths[index], "seg_fields": []})
        batch = {"inputs": [sample["inputs"]], "data_samples": None}
        return self.normalise(batch, False)["inputs"][0]


def stabilize_config(
    config_file: str | Path,
    weights: str | Path,
    settings: Settings,
    folder: str | Path,
    overrides: Sequence[str] = (),
    data_root: str | Path | None = None,
    images: Sequence[str] = (),
    held_out: int = 10,
    resume: bool = False,
    progress: bool = True,
) -> Report:
    """Stabilize a config's network, with its filters put into the trained plain network.

    Writes `stabilized.pth`, which MMSegmentation loads as any checkpoint.

    Args:
        config_file: of the student; the teacher is the same without filters.
        weights: of the trained network.
        folder: of checkpoints.
        overrides: KEY=VALUE of mmengine.
        data_root: the folder of the config's data set.
        images: paths, in place of the training images of the config.
        held_out: every so many-th image decides when to stop, and isn't trained on; 0 for none.
        resume: go on from the checkpoint in `folder`.

    Raises:
        ValueError, FileNotFoundError: as `stabilize` and `load_config` do.
    """
    init_default_scope("mmseg")
    cfg = load_config(config_file, folder, overrides, data_root)
    state = read_checkpoint(weights)
    student, teacher = _network(cfg), _network(_plain(cfg))
    load_weights(student.segmentor, state)
    load_weights(teacher.segmentor, state)
    paths = list(images) or _training_images(cfg)
    chosen = set(range(0, len(paths), held_out)) if held_out else set()
    seen = Inputs(cfg, [path for index, path in enumerate(paths) if index not in chosen])
    unseen = Inputs(cfg, [paths[index] for index in sorted(chosen)])
    if torch.cuda.is_available():
        student, teacher = student.cuda(), teacher.cuda()
    report = stabilize(student, teacher, seen, settings, unseen, folder, resume, progress)
    torch.save({"state_dict": student.segmentor.state_dict()}, Path(folder) / "stabilized.pth")
    return report


def _network(cfg: Config) -> Logits:
    cfg.model.pretrained = None
    cfg.model.backbone.init_cfg = None
    return Logits(MODELS.build(cfg.model)).eval()


def _plain(cfg: Config) -> Config:
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone.aa = {"filter": "none"}
    return cfg


def _training_images(cfg: Config) -> list[str]:
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    return [dataset.get_data_info(index)["img_path"] for index in range(len(dataset))]
