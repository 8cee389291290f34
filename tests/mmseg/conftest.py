from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from aa_plugins.checkpoints import read_checkpoint
from aa_plugins.datasets import write_shapes
from tests.mmseg.running import run

if find_spec("mmseg"):  # its tests skip file by file otherwise
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=True)

ROOT = Path(__file__).resolve().parents[2]

TINY = """
_base_ = "{base}"
model = dict(
    backbone=dict(base_channels=8, stem_channels=8, aa=dict(groups=2)),
    decode_head=dict(in_channels=64, c1_in_channels=8, c1_channels=8, channels=16),
    auxiliary_head=dict(in_channels=32, channels=8),
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=4, by_epoch=False)]
train_cfg = dict(max_iters=4, val_interval=4)
train_dataloader = dict(batch_size=2, dataset=dict(serialize_data=False))
val_dataloader = dict(dataset=dict(serialize_data=False))
test_dataloader = dict(dataset=dict(serialize_data=False))
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(vis_backends=vis_backends)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
"""


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of shapes in CamVid's layout: 4 images to train on and 5 to test on."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(folder, "camvid", train=4, val=5, size=(112, 144))
    return folder


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adaptive recipe of the demo with a thin network and four iterations.

    Without what takes seconds of every run: data sets are serialized to spare memory, which
    collects all garbage first, and TensorBoard gets the formatted config.
    """
    path = tmp_path_factory.mktemp("configs") / "tiny.py"
    base = ROOT / "configs/mmseg/deeplabv3plus_r18_shapes_adaptive.py"
    path.write_text(TINY.format(base=base))
    return path


@pytest.fixture(scope="session")
def trained(tiny_config, shapes, tmp_path_factory):
    """The tiny recipe trained and tested: its folder and its metrics."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, run(tiny_config, shapes, folder)


@pytest.fixture(scope="session")
def tested(trained, tiny_config, shapes, tmp_path_factory):
    """Weights whose predictions aren't constant, and what a test run says of them."""
    folder = tmp_path_factory.mktemp("tested")
    state = read_checkpoint(trained[0] / "iter_4.pth")["state_dict"]
    torch.manual_seed(0)
    state["decode_head.conv_seg.weight"].normal_()
    state["decode_head.conv_seg.bias"].zero_()
    torch.save(state, folder / "weights.pth")
    metrics = run(tiny_config, shapes, folder, eval_only=True, weights=folder / "weights.pth")
    return folder, metrics
