from pathlib import Path

import pytest
import torch

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

from detectron2.modeling import build_model
from torch import nn

from aa_plugins.datasets import write_shapes
from aa_plugins.detectron2.config import load_yaml
from aa_plugins.surgery import filter_keys

CONFIGS = Path(__file__).resolve().parents[2] / "configs/detectron2"
SHAPES = str(CONFIGS / "Shapes/mask_rcnn_R_18_FPN_baseline.yaml")

# A Mask R-CNN in which the backbone alone has its real width.
TINY = (
    "MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 32 MODEL.ROI_MASK_HEAD.CONV_DIM 16 "
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN 60 MODEL.RPN.PRE_NMS_TOPK_TEST 60 "
    "MODEL.RPN.POST_NMS_TOPK_TRAIN 30 MODEL.RPN.POST_NMS_TOPK_TEST 30 "
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 16 SOLVER.IMS_PER_BATCH 2 "
    "INPUT.MIN_SIZE_TRAIN (96,) INPUT.MIN_SIZE_TEST 96 TEST.DETECTIONS_PER_IMAGE 10"
).split()


@pytest.fixture(autouse=True)
def one_thread_and_a_seed():
    """Detectron2's own seeding is left alone; tests that draw weights do so from here."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """A folder that holds `shapes/`, as $DETECTRON2_DATASETS does."""
    root = tmp_path_factory.mktemp("datasets")
    write_shapes(root / "shapes", "coco", train=6, val=4, size=(96, 128))
    return root


@pytest.fixture
def datasets(shapes, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shapes))
    return shapes


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """Random weights of the tiny Mask R-CNN with adaptive filters, which finds things."""
    torch.manual_seed(1)
    model = build_model(load_yaml(SHAPES, [*TINY, "MODEL.AA.FILTER", "adaptive"]))
    scramble(model)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save({"model": model.state_dict()}, path)
    return str(path)


@torch.no_grad()
def scramble(model: nn.Module) -> None:
    """Weights that hide nothing: every norm and bias perturbed, and heads that decide."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
        elif "predictor" in name or "rpn_head" in name:
            parameter.normal_(0, 0.5 / parameter[0].numel() ** 0.5)


@torch.no_grad()
def calibrate(model: nn.Module, images: torch.Tensor) -> None:
    """Let every batch norm learn the statistics of `images`, (N, 3, H, W)."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
    model.train()
    model(images)
    model.eval()
    for norm in norms:
        norm.momentum = 0.1


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return ((a - b).abs().max() / a.abs().max()).item()


def parameters_of_filters(model: nn.Module) -> set[str]:
    """Keys that a checkpoint of the plain model misses; torch doesn't report counters of norms."""
    return {key for key in filter_keys(model) if not key.endswith("num_batches_tracked")}
