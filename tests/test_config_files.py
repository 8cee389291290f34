"""Configs come with the package: found by name from anywhere, and inherited from anywhere."""

from pathlib import Path

import pytest

import aa_plugins

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SEGMENTOR = "mmseg/deeplabv3plus_r18_camvid_blur.py"
DETECTOR = "detectron2/PennFudan/mask_rcnn_R_18_FPN_blur.yaml"


def test_every_config_has_its_name():
    names = aa_plugins.list_config_files()
    assert {SEGMENTOR, DETECTOR} <= set(names) and not any("_base_" in name for name in names)
    for name in names:
        assert Path(aa_plugins.get_config_file(name)).samefile(CONFIGS / name)
        assert aa_plugins.get_config_file(f"configs/{name}") == aa_plugins.get_config_file(name)


def test_an_unknown_name_has_a_nearest():
    with pytest.raises(FileNotFoundError, match=f"nearest name is {SEGMENTOR}"):
        aa_plugins.get_config_file("mmseg/deeplab_r18_camvid_blur.py")


def test_a_config_of_mmsegmentation_inherits(tmp_path):
    config = pytest.importorskip("mmengine.config", reason="MMSegmentation isn't installed")
    text = f'_base_ = __import__("aa_plugins").get_config_file("{SEGMENTOR}")\n'
    (tmp_path / "mine.py").write_text(f"{text}train_cfg = dict(max_iters=7)\n")
    mine = config.Config.fromfile(tmp_path / "mine.py")
    theirs = config.Config.fromfile(CONFIGS / SEGMENTOR)
    assert mine.train_cfg.max_iters == 7 and mine.model == theirs.model


def test_a_config_of_detectron2_inherits_with_its_own_bases(tmp_path):
    pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")
    from aa_plugins.detectron2.config import load_yaml

    (tmp_path / "mine.yaml").write_text(
        f'_BASE_: "aa_plugins::{DETECTOR}"\nSOLVER:\n  MAX_ITER: 7\n'
    )
    mine, theirs = (load_yaml(str(p)) for p in (tmp_path / "mine.yaml", CONFIGS / DETECTOR))
    assert mine.SOLVER.MAX_ITER == 7 and mine.MODEL == theirs.MODEL
    (tmp_path / "wrong.yaml").write_text('_BASE_: "aa_plugins::detectron2/none.yaml"\n')
    with pytest.raises(FileNotFoundError, match="no config file detectron2/none.yaml"):
        load_yaml(str(tmp_path / "wrong.yaml"))
