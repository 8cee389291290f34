"""Config nodes, config files, and slips in them."""

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

from detectron2.config import get_cfg, instantiate
from detectron2.modeling import build_model

from aa_plugins import AAConfig
from aa_plugins.detectron2 import add_aa_config
from aa_plugins.detectron2.config import aa_config, load_lazy, load_yaml
from aa_plugins.layers import filters_of
from tests.detectron2.shared import CONFIGS, SHAPES

YAML = sorted(path for path in CONFIGS.rglob("*.yaml"))
LAZY = sorted(path for path in CONFIGS.rglob("*.py"))


def test_the_node_starts_as_the_default():
    cfg = get_cfg()
    add_aa_config(cfg)
    assert aa_config(cfg) == AAConfig()
    cfg.merge_from_list(["MODEL.AA.FILTER", "bank", "MODEL.AA.EXCLUDE", "('stem',)"])
    assert aa_config(cfg) == AAConfig(filter="bank", exclude=("stem",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.AA.GROUPZ", "4"], "did you mean MODEL.AA.GROUPS"),
        (["MODEL.AA.FILTER", "gauss"], "choose one of adaptive"),
        (["MODEL.AA.KERNEL_SIZE", "4", "MODEL.AA.FILTER", "adaptive"], "needs a centre tap"),
        (["MODEL.AA.CONV", "3"], "CONV"),
        (["SOLVER.MAX_ITR", "1"], "did you mean SOLVER.MAX_ITER"),
    ],
)
def test_slips_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        load_yaml(SHAPES, options)


def test_a_slip_in_a_file_is_named(tmp_path):
    path = tmp_path / "slip.yaml"
    path.write_text(f'_BASE_: "{SHAPES}"\nMODEL:\n  AA:\n    KERNEL_SIZ: 5\n')
    with pytest.raises(ValueError, match="MODEL.AA.KERNEL_SIZ; did you mean MODEL.AA.KERNEL_SIZE"):
        load_yaml(str(path))


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.stem)
def test_every_yaml_file_is_whole(path):
    cfg = load_yaml(str(path))
    if "Base" not in path.stem:
        variant = path.stem.rsplit("_", 1)[1]
        plain = ("baseline", "finetune")
        assert cfg.MODEL.AA.FILTER == ("none" if variant in plain else variant)
        assert path.parent.name == "COCO-InstanceSegmentation" or variant in cfg.OUTPUT_DIR


@pytest.mark.parametrize("path", LAZY, ids=lambda path: path.stem)
def test_every_lazy_file_is_whole(path):
    cfg = load_lazy(str(path))
    variant = path.stem.rsplit("_", 1)[1]
    assert cfg.model.backbone.bottom_up.aa.filter == ("none" if variant == "baseline" else variant)
    assert cfg.train.max_iter == (270000 if "_3x_" in path.stem else 90000)
    if "mask_rcnn_R_" in path.stem:
        depth = int(path.stem.split("_")[3])
        assert cfg.model.backbone.bottom_up.backbone.stages.depth == depth
        assert f"R-{depth}.pkl" in cfg.train.init_checkpoint


def test_yaml_and_lazy_config_make_the_same_model():
    name = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_adaptive"
    yaml = build_model(load_yaml(str(CONFIGS / f"{name}.yaml")))
    lazy = instantiate(load_lazy(str(CONFIGS / f"{name}.py")).model)
    strip = [key.replace("bottom_up.backbone.", "bottom_up.") for key in lazy.state_dict()]
    assert list(yaml.state_dict()) == strip
    assert [n for n, _ in filters_of(yaml)] == [n for n, _ in filters_of(lazy)] != []


def test_lazy_overrides_reach_the_filter():
    path = str(CONFIGS / "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_adaptive.py")
    cfg = load_lazy(path, ["model.backbone.bottom_up.aa.filter=blur"])
    model = instantiate(cfg.model)
    assert list(filters_of(model)) == []
    assert hasattr(model.backbone.bottom_up.res3[0], "prefilter")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_itr=5", "no key train.max_itr .*did you mean max_iter"),
        ("mdel.backbone.freeze_at=0", "no key mdel .*did you mean model"),
        ("train.max_iter.x=5", "train.max_iter is not a config"),
    ],
)
def test_slips_in_lazy_overrides_are_named(override, message):
    path = str(CONFIGS / "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_adaptive.py")
    with pytest.raises(ValueError, match=message):
        load_lazy(path, [override])


def test_what_a_lazy_callable_takes_can_be_added():
    path = str(CONFIGS / "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_adaptive.py")
    cfg = load_lazy(path, ["+train.seed=3", "model.backbone.bottom_up.aa.kernel_size=5"])
    assert cfg.train.seed == 3
    assert {layer.kernel_size for _, layer in filters_of(instantiate(cfg.model))} == {5}
    cfg = load_lazy(path, ["model.backbone.bottom_up.aa.kernel_sise=5"])
    with pytest.raises(ValueError, match="unknown AAConfig field 'kernel_sise'"):
        instantiate(cfg.model.backbone.bottom_up)


def test_timm_lazy_config_builds_without_a_download():
    path = str(CONFIGS / "COCO-InstanceSegmentation/mask_rcnn_swin_tiny_FPN_3x_adaptive.py")
    cfg = load_lazy(path, ["model.backbone.bottom_up.pretrained=False"])
    model = instantiate(cfg.model)
    assert len(list(filters_of(model))) == 3
