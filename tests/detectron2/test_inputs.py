"""Bad inputs of `aa-plugins train` and `consistency`: one line with value and remedy, no traceback.

Each is tried on the command line's own function, and before any work is done where that can be.
"""

import json
import logging
import re
import shutil

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import torch
from detectron2.utils.logger import setup_logger

from aa_plugins.command import run
from aa_plugins.detectron2.processes import LOGGERS
from tests.detectron2.shared import LAZY, SHAPES, TINY

FAST = ["SOLVER.BASE_LR", "1e12", "SOLVER.WARMUP_ITERS", "0"]
TINY_OPTIONS = [*TINY, "MODEL.AA.FILTER", "adaptive", "SOLVER.MAX_ITER", "2"]


def said(capfd, name, *arguments):
    """The line that ends a command which must fail."""
    code = run(name, [str(argument) for argument in arguments])
    captured = capfd.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert code == 1 and len(errors) == 1, captured.err
    assert "Traceback" not in captured.out + captured.err
    return errors[0]


def assert_matches(line, message):
    assert re.search(message, line), line


@pytest.fixture(autouse=True)
def handlers():
    """Detectron2's handlers keep the terminal of the test that made them."""
    yield
    setup_logger.cache_clear()
    for name in LOGGERS:
        logging.getLogger(name).handlers.clear()


@pytest.fixture
def train(capfd, datasets, tmp_path):
    def call(*options, config=SHAPES, flags=()):
        tail = [*TINY_OPTIONS, "OUTPUT_DIR", tmp_path / "out"] if config == SHAPES else []
        head = ("--config-file", config, *flags)
        return said(capfd, "train", *head, *tail, *options)

    return call


def yaml(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: [1, 2", "mine.yaml isn't plain YAML"),
        ("- MODEL", "holds no KEY: value lines"),
        ("MODEL: !!python/object/apply:os.getcwd []", "isn't plain YAML, without code"),
        ('_BASE_: "nope.yaml"', "no file .*nope.yaml, its _BASE_"),
        ('_BASE_: "detectron2::nope.yaml"', "no file .*nope.yaml, its _BASE_"),
        ("MODEL:\n  BACKBONE:\n    NAME: build_aa_resnet_fpm_backbone", "did you mean build_aa_"),
        ("MODEL:\n  AA:\n    FILTER: blur", "doesn't read MODEL.AA: use 'build_aa_resnet_back"),
        (
            "MODEL:\n  BACKBONE:\n    NAME: build_resnet_fpn_backbone\n  AA:\n    FILTER: adaptive",
            "'build_resnet_fpn_backbone' doesn't read MODEL.AA: use 'build_aa_resnet_fpn_backbone'",
        ),
        (
            "MODEL:\n  BACKBONE:\n    NAME: build_retinanet_resnet_fpn_backbone\n"
            "  AA:\n    P6: True",
            "doesn't read MODEL.AA: use 'build_aa_retinanet_resnet_fpn_backbone'",
        ),
        (
            f'_BASE_: "{SHAPES}"\nMODEL:\n  TIMM:\n    NAME: convnext_atto',
            "doesn't read MODEL.TIMM: use 'build_aa_timm_fpn_backbone'",
        ),
        (f'_BASE_: "{SHAPES}"\nMODEL:\n  META_ARCHITECTURE: RCNN', "RCNN"),
        (f'_BASE_: "{SHAPES}"\nMODEL:\n  ROI_HEADS:\n    NAME: Heads', "Heads"),
        (
            f'_BASE_: "{SHAPES}"\nMODEL:\n  BACKBONE:\n    NAME: build_aa_timm_fpn_backbone\n'
            "  TIMM:\n    NAME: convnext_ato",
            "timm has no model 'convnext_ato': did you mean convnext_atto",
        ),
    ],
)
def test_a_slip_in_a_yaml_file(text, message, train, tmp_path):
    assert_matches(train(config=yaml(tmp_path, text)), message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["SOLVER.MAX_ITER"], "pairs, KEY VALUE"),
        (["DATASETS.TRAIN", "('shapes_trian',)"], "no data set 'shapes_trian': did you mean shape"),
        (["DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty"),
        (["DATASETS.TEST", "('coco_2017_val',)"], "data set 'coco_2017_val': .* doesn't exist"),
        (["MODEL.ROI_HEADS.NUM_CLASSES", "2"], "'shapes_train' has 7 classes, but the model 2"),
        (["SOLVER.IMS_PER_BATCH", "0"], "Total batch size"),
        ([*FAST, "SOLVER.MAX_ITER", "4"], "NaN.*Lower the learning rate"),
        (FAST, "image .*val/000001.png: backbone gives values that aren't finite"),
    ],
)
def test_options_of_a_training(options, message, train):
    assert_matches(train(*options), message)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--weights", "nope.pth"], "no checkpoint nope.pth"),
        (["--weights", "detectron2://nope?seed=1"], "the only query is"),
        (
            ["--eval-only"],
            "--eval-only without weights would test a random network: give --weights",
        ),
        (["--data-root", "nope"], "--data-root nope: no such folder"),
        (["--num-gpus", "0"], "--num-gpus 0: give 1 or more"),
        (["--launcher", "pytorch"], "--launcher"),
        (["--work-dir", SHAPES], "mask_rcnn_R_18_FPN_baseline.yaml"),
        (["--cfg-options", "SOLVER.MAX_ITER"], "give KEY=VALUE"),
        (["--cfg-options", "SOLVER.MAX_ITR=1"], "did you mean SOLVER.MAX_ITER"),
    ],
)
def test_flags_of_a_training(flags, message, train):
    assert_matches(
        train(flags=flags if "--cfg-options" not in flags else [*flags, "--amp"]), message
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="without a GPU")
def test_a_training_on_two_gpus_that_are_not_there(train):
    assert_matches(train(flags=["--num-gpus", "2"]), "--num-gpus 2: this machine has no GPU")


def test_weights_of_another_network(train, tmp_path):
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "other.pth")
    weights = ["--weights", tmp_path / "other.pth"]
    assert_matches(train(flags=weights), "other.pth holds no weight of this model")
    assert_matches(
        train(flags=["--eval-only", *weights]), "other.pth lacks 'backbone.*another arch"
    )


def test_a_test_set_that_nothing_evaluates_is_refused_before_training(train, tmp_path):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    DatasetCatalog.register("stuff_val", lambda: [{"file_name": "a.png", "image_id": 1}])
    MetadataCatalog.get("stuff_val").set(evaluator_type="sem_seg")
    try:
        line = train("DATASETS.TEST", "('stuff_val',)")
    finally:
        DatasetCatalog.remove("stuff_val")
        MetadataCatalog.remove("stuff_val")
    assert_matches(line, "'stuff_val' has evaluator_type='sem_seg'.*leave it out of DATASETS.TEST")
    assert not list((tmp_path / "out").glob("*.pth"))


@pytest.fixture
def copy(shapes, tmp_path):
    """A copy of the data to break."""
    return shutil.copytree(shapes / "shapes", tmp_path / "data/shapes")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_image_that_is_cut_off_is_named(workers, copy, train):
    for image in (copy / "train").iterdir():
        image.write_bytes(image.read_bytes()[:3000])
    options = ["DATALOADER.NUM_WORKERS", workers]
    line = train(*options, flags=["--data-root", copy.parent])
    assert_matches(line, "train/.*png can't be read .*replace the file")


def test_a_training_set_without_labels_is_named(copy, train):
    path = copy / "instances_train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
    assert_matches(train(flags=["--data-root", copy.parent]), "shapes_train")


LAZY_SLIPS = {
    "model = L(": "lazy.py, line 1 isn't Python",
    "1 / 0": "lazy.py doesn't run: ZeroDivisionError",
    "import nope": "lazy.py doesn't run: ModuleNotFoundError: No module named 'nope'",
    "train = dict(device='cpu')": "lazy.py has no model: a LazyConfig defines model",
    LAZY + "model.roi_heads.colour = 3": "the config's model can't be made: .*colour",
    LAZY + "train.filters = dict(rate=3)": "no key train.filters.rate: known are lr_factor",
    LAZY + "dataloader.train.dataset.json_file = 'nope.json'": "nope.json doesn't exist",
    LAZY + "dataloader.evaluator.dataset_name = 'nope'": "no data set 'nope'",
}


@pytest.mark.parametrize("text", LAZY_SLIPS)
def test_a_slip_in_a_lazy_config(text, train, tmp_path):
    (tmp_path / "lazy.py").write_text(text)
    options = [f"train.output_dir={tmp_path}/out"] if text.startswith(LAZY) else []
    assert_matches(train(*options, config=str(tmp_path / "lazy.py")), LAZY_SLIPS[text])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train.max_iter", "overrides of a LazyConfig are key=value"),
        ("train.filters.rate=1", "no key train.filters.rate"),
        ("train.max_itr=1", "did you mean max_iter"),
        ("model.backbone.bottom_up.aa.filter=gauss", "choose one of adaptive"),
    ],
)
def test_a_slip_in_the_overrides_of_a_lazy_config(option, message, train, tmp_path):
    (tmp_path / "lazy.py").write_text(LAZY)
    assert_matches(train(option, config=str(tmp_path / "lazy.py")), message)


SEMANTIC = '_BASE_: "detectron2::Misc/semantic_R_50_FPN_1x.yaml"\n'
PROPOSALS = '_BASE_: "detectron2::COCO-Detection/rpn_R_50_FPN_1x.yaml"\n'
DATA = (
    "DATASETS:\n  COCO_PATHS:\n    s_val: ['shapes/instances_val.json', 'shapes/val']\n"
    "  TEST: ('s_val',)\n"
)


@pytest.mark.parametrize("base", [SEMANTIC, PROPOSALS], ids=["semantic", "proposals"])
def test_networks_without_instances_are_refused_with_what_to_do(
    base, capfd, datasets, tiny_weights, tmp_path
):
    config = yaml(tmp_path, base + DATA)
    line = said(capfd, "consistency", config, "--weights", tiny_weights, "--out", tmp_path / "out")
    assert_matches(line, "finds no instances with classes, .*measure a GeneralizedRCNN, Panoptic")


def test_a_missing_second_file_is_found_before_the_first_is_measured(
    capfd, datasets, tiny_weights, tmp_path
):
    pairs = [f"{k}={v}" for k, v in zip(TINY_OPTIONS[::2], TINY_OPTIONS[1::2])]
    head = (SHAPES, SHAPES, "--weights", tiny_weights, "nope.pth", "--out", tmp_path / "out")
    line = said(capfd, "consistency", *head, "--cfg-options", *pairs)
    assert_matches(line, "nope.pth")
    assert not list(tmp_path.rglob("records.*"))
