from pathlib import Path

import pytest

from aa_plugins.hosts import Host, host_of

DETECTRON2, MMSEGMENTATION = Host.DETECTRON2, Host.MMSEGMENTATION

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("mmseg/*.py")), ids=lambda path: path.stem)
def test_configs_of_mmsegmentation(path):
    assert host_of(path) == MMSEGMENTATION


def test_configs_of_detectron2():
    yaml, lazy = (sorted(CONFIGS.glob(f"detectron2/*/*.{s}")) for s in ("yaml", "py"))
    assert yaml and all(host_of(path) == DETECTRON2 for path in yaml)
    assert lazy and all(host_of(path) == DETECTRON2 for path in lazy)


@pytest.mark.parametrize(
    "text, host",
    [
        ('model = dict(type="EncoderDecoder")', MMSEGMENTATION),
        ('model = {"type": "EncoderDecoder"}', MMSEGMENTATION),
        ('_base_ = ["a.py"]', MMSEGMENTATION),
        ("with config.read_base():\n    from .base import model", MMSEGMENTATION),
        ("with open(path) as file:\n    model = L(X)(file)", DETECTRON2),
        ("model = L(GeneralizedRCNN)(backbone=1)", DETECTRON2),
        ('from .common import model\nmodel.type = "x"', DETECTRON2),
    ],
)
def test_python_configs_are_told_apart_by_their_text(tmp_path, text, host):
    (tmp_path / "config.py").write_text(text)
    assert host_of(tmp_path / "config.py") == host


def test_what_is_no_config_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no config file"):
        host_of(tmp_path / "none.yaml")
    (tmp_path / "config.json").touch()
    with pytest.raises(ValueError, match="neither .yaml nor .py"):
        host_of(tmp_path / "config.json")


@pytest.mark.parametrize(
    "network, host",
    [
        ("timm:resnet50", Host.TIMM),
        ("torchvision:fcn_resnet50", Host.TORCHVISION),
        ("shop.nets:build", Host.PLAIN),
        ("mmseg/deeplabv3plus_r18_camvid_blur.py", Host.MMSEGMENTATION),
        ("detectron2/PennFudan/mask_rcnn_R_18_FPN_blur.yaml", Host.DETECTRON2),
    ],
)
def test_networks_by_name(network, host):
    assert host_of(network) is host


def test_every_host_is_a_folder():
    for host in Host:
        assert (CONFIGS.parent / "aa_plugins" / host.value / "host.py").is_file()


def test_a_new_style_config_of_mmengine(tmp_path):
    text = "from mmengine.config import read_base\nwith read_base():\n    from .base import *\n"
    (tmp_path / "config.py").write_text(text)
    assert host_of(tmp_path / "config.py") is Host.MMSEGMENTATION


def test_a_config_that_is_not_python_is_named_with_its_line(tmp_path):
    (tmp_path / "config.py").write_text("a = 1\nmodel = dict(\n")
    with pytest.raises(ValueError, match="config.py, line 2"):
        host_of(tmp_path / "config.py")
