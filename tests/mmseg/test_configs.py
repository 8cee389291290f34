import os
from pathlib import Path

import mmseg
import pytest

pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")

from mmengine.config import Config
from mmseg.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]

CONFIGS = sorted((ROOT / "configs/mmseg").glob("*.py"))


def differences(ours, theirs, path=""):
    """Dotted keys at which two nested dicts differ."""
    for key in sorted(set(ours) | set(theirs)):
        here = f"{path}.{key}".strip(".")
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, here)
        elif a != b:
            yield here


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_reads_and_names_its_classes(path):
    cfg = Config.fromfile(str(path))
    numbers = {"voc": 21, "cityscapes": 19, "camvid": 11, "shapes": 8}
    (classes,) = (number for name, number in numbers.items() if f"_{name}_" in path.stem)
    assert cfg.model.decode_head.num_classes == classes
    if cfg.model.auxiliary_head:
        assert cfg.model.auxiliary_head.num_classes == classes
    variant = path.stem.split("_")[-1]
    plain = ("baseline", "tuning", "finetune")
    assert cfg.model.backbone.aa.filter == ("none" if variant in plain else variant)
    evaluators = [evaluator.type for evaluator in cfg.test_evaluator]
    assert evaluators == ["IoUMetric", "ShiftConsistencyMetric"]


@pytest.mark.parametrize("dataset", ["voc", "cityscapes", "camvid"])
def test_the_three_variants_differ_in_the_filter_alone(dataset):
    folder = ROOT / "configs/mmseg"
    base, *others = (
        Config.fromfile(str(folder / f"deeplabv3plus_r101_{dataset}_{variant}.py"))
        for variant in ("baseline", "blur", "adaptive")
    )
    for other in others:
        assert list(differences(other, base)) == ["model.backbone.aa.filter"]


def test_the_model_is_mmsegs_own_but_for_the_backbone():
    own = Path(mmseg.__file__).parent / ".mim/configs/deeplabv3plus"
    theirs = Config.fromfile(
        os.fspath(own / "deeplabv3plus_r101-d8_4xb2-80k_cityscapes-512x1024.py")
    )
    ours = Config.fromfile(str(ROOT / "configs/mmseg/deeplabv3plus_r101_cityscapes_baseline.py"))
    changed = set(differences(ours.model, theirs.model))
    assert changed == {
        "backbone.aa",
        "backbone.type",
        "backbone.norm_cfg.type",  # BN, which mmengine synchronises on several GPUs
        "decode_head.norm_cfg.type",
        "auxiliary_head.norm_cfg.type",
    }


@pytest.mark.parametrize("name", ["r18_camvid_adaptive", "r101_voc_adaptive"])
def test_models_build(name):
    cfg = Config.fromfile(str(ROOT / f"configs/mmseg/deeplabv3plus_{name}.py"))
    cfg.model.pretrained = None
    model = MODELS.build(cfg.model)
    assert len(model.backbone.aa_report.sites) == (5 if "r18" in name else 3)


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_tiny"])
def test_timm_models_build(name):
    cfg = Config.fromfile(str(ROOT / f"configs/mmseg/deeplabv3plus_{name}_camvid_adaptive.py"))
    cfg.model.backbone.pretrained = False
    backbone = MODELS.build(cfg.model).backbone
    assert backbone.channels[3] == cfg.model.decode_head.in_channels
    assert backbone.channels[0] == cfg.model.decode_head.c1_in_channels
    assert backbone.channels[2] == cfg.model.auxiliary_head.in_channels
