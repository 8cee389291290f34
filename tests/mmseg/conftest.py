from importlib.util import find_spec
from pathlib import Path

import pytest

from aa_plugins.datasets import write_shapes

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
train_dataloader = dict(batch_size=2)
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
    """The adaptive recipe of the demo with a thin network and four iterations."""
    path = tmp_path_factory.mktemp("configs") / "tiny.py"
    base = ROOT / "configs/mmseg/deeplabv3plus_r18_shapes_adaptive.py"
    path.write_text(TINY.format(base=base))
    return path
