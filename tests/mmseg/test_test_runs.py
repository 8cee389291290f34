"""What a test run measures, of which networks and data sets, and what it says where it can't."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")

import mmseg
import torch
from mmengine.config import Config
from mmengine.hooks import LoggerHook
from mmseg.registry import MODELS
from PIL import Image

from aa_plugins.checkpoints import read_checkpoint
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import read_records
from aa_plugins.mmseg import MainProcessLoggerHook, ShiftConsistencyMetric
from aa_plugins.mmseg.evaluate import evaluate, protocol_of
from aa_plugins.mmseg.segmentors import network_input
from tests.mmseg.running import ROOT, run, summary_of

SHORT = ["train_cfg.max_iters=1", "train_cfg.val_interval=1"]
ONE = ["test_dataloader.dataset.indices=1"]


def config_of(folder, base, text):
    path = folder / "config.py"
    path.write_text(f'_base_ = "{base}"\n{text}\n')
    return path


def weights_for(config, path):
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(str(config)).model)
    model.decode_head.conv_seg.weight.data.normal_()
    torch.save(model.state_dict(), path)
    return str(path)


def test_a_validation_is_measured_too(tiny_config, shapes, tmp_path):
    text = """
val_evaluator = [
    dict(type="IoUMetric", iou_metrics=["mIoU"]),
    dict(type="ShiftConsistencyMetric", protocol=dict(shifts=[(1, 0)], controls=False)),
]
default_hooks = dict(checkpoint=dict(save_best="shift/mASSC", rule="greater"))
"""
    config = config_of(tmp_path, tiny_config, text)
    run(config, shapes, tmp_path / "work", cfg_options=SHORT)
    summary = json.loads((tmp_path / "work/shift_consistency_val/summary.json").read_text())
    assert summary["mASSC"]["images"] == 5
    assert list((tmp_path / "work").glob("best_shift_mASSC*.pth"))


@pytest.mark.parametrize(
    "evaluator", ["", 'test_evaluator = [dict(type="ShiftConsistencyMetric")]']
)
def test_labels_are_not_needed(tested, tiny_config, shapes, tmp_path, evaluator):
    text = """
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""
    config = config_of(tmp_path, tiny_config, text + evaluator)
    weights = str(tested[0] / "weights.pth")
    if not evaluator:
        with pytest.raises(ValueError, match="gives no labels"):
            run(config, shapes, tmp_path / "work", eval_only=True, weights=weights)
        return
    metrics = run(config, shapes, tmp_path / "work", eval_only=True, weights=weights)
    assert metrics["shift/mASSC"] == tested[1]["shift/mASSC"]
    assert "shift/mIoU" not in metrics and "shift/fidelity" not in metrics


def test_labels_that_are_all_ignored_give_no_number(tested, tiny_config, shapes, tmp_path):
    data = shutil.copytree(shapes, tmp_path / "data")
    for path in (data / "labels/val").iterdir():
        Image.fromarray(np.full((112, 144), 255, np.uint8)).save(path)
    weights = str(tested[0] / "weights.pth")
    metrics = run(tiny_config, data, tmp_path / "work", eval_only=True, weights=weights)
    assert math.isnan(metrics["shift/fidelity"])
    assert metrics["shift/mASSC"] == tested[1]["shift/mASSC"]


def test_records_of_frames_say_so(tested, tiny_config, shapes, tmp_path):
    rule = r"(?P<sequence>val)/(?P<position>\d+)"
    text = f"test_dataloader = dict(dataset=dict(metainfo=dict(sequences=dict(rule={rule!r}))))"
    config = config_of(tmp_path, tiny_config, text)
    weights = str(tested[0] / "weights.pth")
    run(config, shapes, tmp_path / "work", eval_only=True, weights=weights)
    header, records = read_records(tmp_path / "work/shift_consistency")
    assert (header["task"], header["sequences"]) == ("semantic", rule)
    assert {record["sequence"] for record in records} == {"val"}
    assert [record["position"] for record in records] == sorted(r["position"] for r in records)
    assert summary_of(tmp_path / "work")["mASSC"]["unit"] == "block"


def test_sliding_windows_change_the_views_too(tested, tiny_config, shapes, tmp_path):
    text = 'model = dict(test_cfg=dict(mode="slide", crop_size=(48, 48), stride=(32, 32)))'
    config = config_of(tmp_path, tiny_config, text)
    weights = str(tested[0] / "weights.pth")
    metrics = run(config, shapes, tmp_path / "work", eval_only=True, weights=weights)
    assert metrics["shift/mASSC"] != tested[1]["shift/mASSC"]
    # The noise floor and the whole image's mIoU agree with the host's.
    assert metrics["shift/noise_floor"] == 100
    assert metrics["shift/mIoU"] == pytest.approx(metrics["mIoU"], abs=0.02)


def test_a_binary_head_is_measured_and_trained(tiny_config, shapes, tmp_path):
    text = """
binary = dict(num_classes=2, out_channels=1, threshold=0.5)
loss = dict(type="CrossEntropyLoss", use_sigmoid=True)
model = dict(
    decode_head=dict(loss_decode=loss, **binary), auxiliary_head=dict(loss_decode=loss, **binary)
)
metainfo = dict(classes=("ground", "star"))
train_dataloader = dict(dataset=dict(metainfo=metainfo))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = dict(dataset=dict(metainfo=metainfo))
"""
    config = config_of(tmp_path, tiny_config, text)
    run(config, shapes, tmp_path / "work", cfg_options=SHORT)
    weights = tmp_path / "weights.pth"
    model = MODELS.build(Config.fromfile(str(config)).model).eval()
    image = np.array(Image.open(next((shapes / "images/val").iterdir())).convert("RGB"))
    pixels = network_input(model, torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1))
    logits = model.encode_decode(pixels[None], [{"img_shape": pixels.shape[1:]}])
    model.decode_head.conv_seg.bias.data -= logits.mean()  # both labels occur
    torch.save(model.state_dict(), weights)
    metrics = run(config, shapes, tmp_path / "test", eval_only=True, weights=str(weights))
    assert 20 < metrics["shift/mASSC"] < 100
    assert metrics["shift/mIoU"] == pytest.approx(metrics["mIoU"], abs=0.02)


@pytest.mark.parametrize(
    "change",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("data", "pipeline")] + ["model"],
)
def test_resuming_on_other_data_is_refused(tested, tiny_config, shapes, tmp_path, change):
    weights = str(tested[0] / "weights.pth")
    protocol = Protocol.from_dict(protocol_of(tiny_config))
    data = shutil.copytree(shapes, tmp_path / "data")
    evaluate(tiny_config, weights, protocol, tmp_path / "out", data, ONE)
    moved = data.rename(tmp_path / "elsewhere")
    evaluate(tiny_config, weights, protocol, tmp_path / "out", moved, ONE, resume=True)
    text, overrides = "", ONE
    if change == "data":
        label = sorted((moved / "labels/val").iterdir())[0]
        Image.fromarray(np.zeros((112, 144), np.uint8)).save(label)
    elif change == "model":
        overrides = [*ONE, "model.decode_head.dropout_ratio=0.2"]
    else:
        text = """
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(160, 128)),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""
    config = config_of(tmp_path, tiny_config, text)
    with pytest.raises(ValueError, match=rf"identity {change}="):
        evaluate(config, weights, protocol, tmp_path / "out", moved, overrides, resume=True)


def test_training_starts_from_weights_of_another_head(tested, tiny_config, shapes, tmp_path):
    weights = tested[0] / "weights.pth"
    state = read_checkpoint(weights)
    for key in list(state):
        if "conv_seg" in key:
            state[key] = torch.zeros(19, *state[key].shape[1:])
    torch.save({"state_dict": state}, tmp_path / "other.pth")
    options = [*SHORT, *ONE, "optim_wrapper.optimizer.lr=0.0"]
    run(
        *(tiny_config, shapes, tmp_path / "work"),
        weights=str(tmp_path / "other.pth"),
        cfg_options=options,
    )
    trained = read_checkpoint(tmp_path / "work/iter_1.pth")["state_dict"]
    key = "backbone.layer3.0.conv2.weight"
    assert torch.equal(trained[key], state[key])
    assert trained["decode_head.conv_seg.weight"].abs().max() > 0
    log = next((tmp_path / "work").glob("20*/*.log")).read_text()
    assert "tensors keep their start" in log
    lines = [line for line in log.splitlines() if "converted: backbone has 5 filters" in line]
    assert len(lines) == 2 and lines[-1] == log.splitlines()[-1]


def test_a_foreign_backbone_to_start_from_is_refused(tiny_config, shapes, tmp_path):
    torch.save({"state_dict": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    entry = dict(type="Pretrained", checkpoint=str(tmp_path / "other.pth"))
    text = f"model = dict(backbone=dict(init_cfg={entry!r}))"
    config = config_of(tmp_path, tiny_config, text)
    with pytest.raises(ValueError, match="no weight that fits backbone"):
        run(config, shapes, tmp_path / "work")


def test_only_the_main_process_writes_the_log_of_a_test(tested, monkeypatch):
    assert len(list((tested[0]).glob("20*/*.json"))) == 1
    called = []
    monkeypatch.setattr(LoggerHook, "after_test_epoch", lambda *a, **k: called.append(1))
    monkeypatch.setattr("mmengine.dist.utils.get_rank", lambda group=None: 1)
    MainProcessLoggerHook().after_test_epoch(None)
    assert called == []


THIN = """
backbone = dict(depth=18, base_channels=8, stem_channels=8)
head = dict(in_channels=64, c1_in_channels=8, c1_channels=8, channels=16)
model = dict(
    pretrained=None,
    backbone=backbone,
    decode_head=head,
    auxiliary_head=dict(in_channels=32, channels=8),
)
small = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(160, 96), keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=small))
"""


def test_four_lines_below_a_stock_config_give_miou_and_mass(tmp_path):
    """The README's lines as they stand; a thin network and small images, to be fast."""
    from aa_plugins.datasets import write_shapes

    write_shapes(tmp_path / "data", "cityscapes", train=1, val=2)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (lines,) = (block for block in blocks if "ShiftConsistencyHook" in block)
    assert len(lines.splitlines()) == 4
    stock = Path(mmseg.__file__).parent / ".mim/configs/deeplabv3plus"
    (tmp_path / "mine.py").write_text(lines.replace("…", str(stock)))
    config = config_of(tmp_path, tmp_path / "mine.py", THIN)
    weights = weights_for(config, tmp_path / "weights.pth")
    metrics = run(config, tmp_path / "data", tmp_path / "work", eval_only=True, weights=weights)
    assert 0 <= metrics["mIoU"] <= 100 and 0 < metrics["shift/mASSC"] <= 100
    assert protocol_of(tmp_path / "mine.py")["stride"] == 8
    assert summary_of(tmp_path / "work")["mASSC"]["images"] == 2


def test_a_new_style_config_runs(tested, tiny_config, shapes, tmp_path):
    Config.fromfile(str(tiny_config)).dump(str(tmp_path / "base.py"))
    text = "from mmengine.config import read_base\n\nwith read_base():\n    from .base import *\n"
    (tmp_path / "new.py").write_text(text + "randomness = dict(seed=1)\n")
    weights = str(tested[0] / "weights.pth")
    metrics = run(tmp_path / "new.py", shapes, tmp_path / "work", eval_only=True, weights=weights)
    assert metrics["shift/mASSC"] == tested[1]["shift/mASSC"]


def test_wrong_options_of_the_metric_are_told_at_once():
    with pytest.raises(ValueError, match="'strid'"):
        ShiftConsistencyMetric(protocol={"strid": 16})
