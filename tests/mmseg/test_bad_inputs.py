"""Bad inputs, on the command line: one line that names the value and what to do, no traceback."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")

import torch
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS
from PIL import Image

from aa_plugins.mmseg import ShiftConsistencyHook
from aa_plugins.mmseg.evaluate import filters_at_work, predict_pair, protocol_of
from aa_plugins.mmseg.runs import load_config, read_overrides

ROOT = Path(__file__).resolve().parents[2]
NO_HOOK = "custom_hooks = []"
UNLABELLED = """
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""
DEPTH = """
model = dict(type="DepthEstimator")
"""


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a tool as from a shell, in this process: what it exits with."""

    def run(tool, *arguments):
        monkeypatch.setattr(sys, "argv", [f"tools/{tool}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(ROOT / f"tools/{tool}.py"), run_name="__main__")
        assert exit.value.code in (1, 2)
        return capsys.readouterr().err.splitlines()[-1]

    return run


def one_line(message, *parts):
    assert isinstance(message, str) and "error: " in message
    assert "\n" not in message and "Traceback" not in message
    for part in parts:
        assert part in message


# What is written below the tiny config, and what the line has to say.
CONFIGS = {
    "syntax": ("model = dict(", ("config.py, line", "correct the config")),
    "base": ('_base_ = "./nowhere.py"', ("nowhere.py",)),
    "backbone": ('model = dict(backbone=dict(type="AAResNetV1x"))', ("mean 'AAResNetV1c'",)),
    "segmentor": ('model = dict(type="EncodeDecoder")', ("did you mean 'EncoderDecoder'",)),
    "filter": ('model = dict(backbone=dict(aa=dict(filtre="blur")))', ("'filtre'", "filter")),
    "argument": ("model = dict(backbone=dict(deepth=18))", ("deepth",)),
    "classes": ("model = dict(decode_head=dict(num_classes=3))", ("num_classes=8", "has 3")),
    "auxiliary": ("model = dict(auxiliary_head=dict(num_classes=3))", ("num_classes=8", "has 3")),
    "dataset": ('test_dataloader = dict(dataset=dict(type="CamvidDataset"))', ("'CamVidDataset'",)),
    "transform": (
        'train_dataloader = dict(dataset=dict(pipeline=[dict(type="LoadImage")]))',
        ("no transform is named 'LoadImage'",),
    ),
    "metric": ('val_evaluator = dict(type="IoUMetrics")', ("'IoUMetric'",)),
    "optimizer": ('optim_wrapper = dict(optimizer=dict(type="SDG"))', ("did you mean 'SGD'",)),
    "hook": ('custom_hooks = [dict(type="ShiftConsistencyHok")]', ("'ShiftConsistencyHook'",)),
    "no hook": (NO_HOOK, ('custom_hooks = [dict(type="ShiftConsistencyHook")]',)),
    "stride": (
        'test_evaluator = [dict(type="ShiftConsistencyMetric", protocol=dict(stride=24))]',
        ("stride=24", "stride 16", "leave stride out"),
    ),
    "protocol": (
        'test_evaluator = [dict(type="ShiftConsistencyMetric", protocol=dict(strid=16))]',
        ("'strid'", "known:"),
    ),
    "large": (
        'test_evaluator = [dict(type="ShiftConsistencyMetric", protocol=dict(stride=64))]',
        ("too small",),
    ),
    "unlabelled": (UNLABELLED, ("IoUMetric", "LoadAnnotations")),
    "pretrained": (
        'model = dict(backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="none.pth")))',
        ("none.pth",),
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_is_refused_before_any_training(command, tiny_config, shapes, tmp_path, name):
    text, parts = CONFIGS[name]
    config = tmp_path / "config.py"
    base = "" if "_base_" in text else f'_base_ = "{tiny_config}"\n'
    config.write_text(f"{base}{text}\n")
    work = tmp_path / "work"
    message = command(
        *("train_net", "--config-file", config, "--data-root", shapes, "--work-dir", work)
    )
    one_line(message, *parts)
    assert not list(work.glob("*.pth"))


OPTIONS = {
    "positional": (["model.backbone.aa.filter", "blur"], ("--cfg-options KEY=VALUE",)),
    "machines": (["--num-machines", "2"], ("--num-machines", "MMSegmentation")),
    "no value": (["--cfg-options", "randomness.seed"], ("KEY=VALUE",)),
    "unknown key": (["--cfg-options", "trian_cfg.max_iters=1"], ("'train_cfg'",)),
    "no weights": (["--eval-only"], ("--weights",)),
    "missing": (["--eval-only", "--weights", "nope.pth"], ("nope.pth",)),
    "missing start": (["--weights", "nope.pth"], ("nope.pth",)),
    "no data": (["--data-root", "nowhere"], ("nowhere", "--data-root")),
    "amp": (["--eval-only", "--amp", "--weights", "nope.pth"], ("--amp",)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_refused(command, tiny_config, shapes, tmp_path, name):
    options, parts = OPTIONS[name]
    given = ["--config-file", tiny_config, "--data-root", shapes, "--work-dir", tmp_path]
    one_line(command("train_net", *given, *options), *parts)


@pytest.fixture
def plain_state(tiny_config):
    state = MODELS.build(Config.fromfile(str(tiny_config)).model).state_dict()
    return {key: value.clone() for key, value in state.items()}


# A writer of a file of weights, from those of the network, and what the line has to say.
FILES = {
    "empty": (lambda state, path: path.write_bytes(b""), ("empty",)),
    "text": (lambda state, path: path.write_text("weights"), ("checkpoint",)),
    "foreign": (
        lambda state, path: torch.save({"state_dict": {"conv.weight": torch.zeros(1)}}, path),
        ("another architecture",),
    ),
    "not a number": (
        lambda state, path: torch.save({k: v * float("nan") for k, v in state.items()}, path),
        ("finite",),
    ),
    "too large": (
        lambda state, path: torch.save(
            {k: v.fill_(3.4e38) if "decode_head.conv_seg" in k else v for k, v in state.items()},
            path,
        ),
        ("isn't finite",),
    ),
}


@pytest.mark.parametrize("training", [False, True], ids=["test", "training"])
@pytest.mark.parametrize("name", FILES)
def test_weights_are_refused(command, tiny_config, shapes, plain_state, tmp_path, name, training):
    if training and name == "too large":
        pytest.skip("what a training makes of them is its own affair")
    write, parts = FILES[name]
    write(plain_state, tmp_path / "bad.pth")
    given = ["--config-file", tiny_config, "--data-root", shapes, "--work-dir", tmp_path / "work"]
    given += ["--weights", tmp_path / "bad.pth", *([] if training else ["--eval-only"])]
    one_line(command("train_net", *given), *parts)
    if not training and name != "too large":
        given = ["--config-file", tiny_config, "--weights", tmp_path / "bad.pth"]
        one_line(command("eval_consistency", *given, "--data-root", shapes), "bad.pth")


def test_all_weights_are_looked_at_before_the_first_is_run(
    command, tiny_config, shapes, plain_state, tmp_path
):
    torch.save(plain_state, tmp_path / "good.pth")
    given = ["--config-file", tiny_config, tiny_config, "--data-root", shapes]
    given += ["--weights", tmp_path / "good.pth", tmp_path / "nope.pth", "--out", tmp_path / "out"]
    one_line(command("eval_consistency", *given), "nope.pth")
    assert not list(tmp_path.glob("out/**/records*"))


def test_broken_data_sets_are_refused(command, tiny_config, shapes, tmp_path):
    data = shutil.copytree(shapes, tmp_path / "data")
    given = ["--config-file", tiny_config, "--data-root", data, "--work-dir", tmp_path / "work"]
    images = sorted((data / "images/val").iterdir())
    for image in images:
        image.write_bytes(image.read_bytes()[:200])
    one_line(command("train_net", *given), "none of 5 images", images[0].name)
    (data / "labels/val" / images[0].name).unlink()
    one_line(command("train_net", *given), "has no label map")
    shutil.rmtree(data / "images/val")
    one_line(command("train_net", *given), "images/val")


def test_a_broken_image_to_train_on_is_named(command, tiny_config, shapes, tmp_path):
    data = shutil.copytree(shapes, tmp_path / "data")
    image = data / "images/train/000001.png"
    image.write_bytes(image.read_bytes()[:-20])
    given = ["--config-file", tiny_config, "--data-root", data, "--work-dir", tmp_path / "work"]
    for workers in (0, 1):
        options = ["--cfg-options", f"train_dataloader.num_workers={workers}"]
        one_line(command("train_net", *given, *options), "000001.png", "cut off", "mend the file")


def test_the_api_says_the_same(tiny_config, shapes, tmp_path, plain_state):
    with pytest.raises(ValueError, match="KEY=VALUE"):
        read_overrides(["model.type"])
    config = tmp_path / "config.py"
    config.write_text(f'_base_ = "{tiny_config}"\nmodel = dict(type="EncodeDecoder")\n')
    with pytest.raises(ValueError, match="did you mean 'EncoderDecoder'"):
        protocol_of(config)
    config.write_text("x = 1\n")
    with pytest.raises(ValueError, match="defines no model"):
        load_config(config)
    torch.save(plain_state, tmp_path / "good.pth")
    with pytest.raises(ValueError, match="no image 5 in the test set: give 0 to 4"):
        predict_pair(tiny_config, tmp_path / "good.pth", 5, data_root=shapes)
    with pytest.raises(ValueError, match="images=0"):
        filters_at_work(tiny_config, tmp_path / "good.pth", shapes, images=0)
    for options in ({"view_batch": 0}, {"protocol": {"kind": "gird"}}):
        with pytest.raises(ValueError, match="view_batch=0|gird"):
            ShiftConsistencyHook(**options)


def test_models_of_timm_are_named():
    with pytest.raises(ValueError, match="did you mean 'resnet50'"):
        MODELS.build(dict(type="AATIMMBackbone", model_name="resnet5O"))


def test_two_images_of_one_name_are_refused(shapes, tmp_path):
    data = shutil.copytree(shapes, tmp_path / "data")
    image = data / "images/val/000001.png"
    Image.open(image).save(image.with_suffix(".jpg"))
    prefix = dict(img_path="images/val", seg_map_path="labels/val")
    with pytest.raises(ValueError, match="share one label map"):
        DATASETS.build(dict(type="ShapesDataset", data_root=str(data), data_prefix=prefix))
