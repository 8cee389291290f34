from pathlib import Path

import pytest

from aa_plugins.hosts import DETECTRON2_LAZY, DETECTRON2_YAML, MMSEGMENTATION, host_of

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("mmseg/*.py")), ids=lambda path: path.stem)
def test_configs_of_mmsegmentation(path):
    assert host_of(path) == MMSEGMENTATION


def test_configs_of_detectron2():
    yaml, lazy = (sorted(CONFIGS.glob(f"detectron2/*/*.{s}")) for s in ("yaml", "py"))
    assert yaml and all(host_of(path) == DETECTRON2_YAML for path in yaml)
    assert lazy and all(host_of(path) == DETECTRON2_LAZY for path in lazy)


@pytest.mark.parametrize(
    "text, host",
    [
        ('model = dict(type="EncoderDecoder")', MMSEGMENTATION),
        ('model = {"type": "EncoderDecoder"}', MMSEGMENTATION),
        ('_base_ = ["a.py"]', MMSEGMENTATION),
        ("model = L(GeneralizedRCNN)(backbone=1)", DETECTRON2_LAZY),
        ('from .common import model\nmodel.type = "x"', DETECTRON2_LAZY),
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
