"""Minutes of Mask R-CNN on the synthetic shapes, all of one class, for `make demo`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from aa_plugins.detectron2.config import load_yaml
from aa_plugins.detectron2.datasets import register_coco_paths
from aa_plugins.detectron2.evaluate import evaluate
from aa_plugins.detectron2.train import Trainer
from aa_plugins.evaluation.protocol import Protocol, grid_shifts

PROTOCOL = Protocol(stride=32, shifts=grid_shifts((1, 4)), controls=False)


def run(
    configs: Mapping[str, Path], data_root: Path, out: Path, iterations: int
) -> dict[str, list[dict[str, Any]]]:
    """Train each config from one seed and measure it; records by the names of `configs`.

    Args:
        configs: yaml files of the shapes by the name of the variant.
        data_root: the folder that holds `shapes`, in COCO's layout.
        out: where checkpoints, logs and records go.
        iterations: of training, each.
    """
    return {
        name: _records(name, config, data_root, out / name, iterations)
        for name, config in configs.items()
    }


class _Bar(HookBase):
    def __init__(self, bar: tqdm) -> None:
        self.bar = bar

    def after_step(self) -> None:
        loss = self.trainer.storage.latest()["total_loss"][0]
        self.bar.set_postfix(loss=f"{loss:.2f}")
        self.bar.update()


def _records(
    name: str, config: Path, data_root: Path, folder: Path, iterations: int
) -> list[dict[str, Any]]:
    options = {
        "OUTPUT_DIR": folder,
        "MODEL.ROI_HEADS.NUM_CLASSES": 1,
        "DATASETS.TEST": "()",  # measured below
        "SOLVER.BASE_LR": 0.02,
        "SOLVER.MAX_ITER": iterations,
        "SOLVER.STEPS": f"({iterations * 4 // 5},)",
        "SOLVER.CHECKPOINT_PERIOD": iterations,
    }
    cfg = load_yaml(str(config), [str(part) for pair in options.items() for part in pair])
    register_coco_paths(cfg, data_root)
    folder.mkdir(parents=True, exist_ok=True)
    for logged in ("detectron2", "fvcore", "aa_plugins"):
        logging.getLogger(logged).handlers.clear()
        setup_logger(str(folder), name=logged, configure_stdout=False)
    seed_all_rng(cfg.SEED)
    trainer = Trainer(cfg)
    with tqdm(total=iterations, desc=f"{name}: training") as bar:
        trainer.register_hooks([_Bar(bar)])
        trainer.train()
    weights = folder / "model_final.pth"
    overrides = ["MODEL.ROI_HEADS.NUM_CLASSES=1"]
    records = folder / "shift_consistency"
    return evaluate(config, weights, PROTOCOL, records, data_root, overrides)
