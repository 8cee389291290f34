"""No checkpoint runs code, whichever way MMSegmentation comes to load it."""

import shutil

import pytest

pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")

import torch
from mmseg.registry import MODELS

from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.layers import filters_of
from aa_plugins.mmseg.evaluate import evaluate, filters_at_work, predict_pair
from tests.attacks import SOME, write_attack, write_broken
from tests.mmseg.test_runs import run

FEW = Protocol(stride=16, shifts=((1, 0),), controls=False)


def trainings(config, shapes, out, file):
    """What tools/train_net.py does with a file, by the option that names it."""
    resumed = out / "resumed"
    resumed.mkdir(exist_ok=True)
    if file.exists():
        shutil.copy(file, resumed / file.name)
    (resumed / "last_checkpoint").write_text(str(resumed / file.name))
    backbone = [
        "model.backbone.init_cfg.type=Pretrained",
        f"model.backbone.init_cfg.checkpoint={file}",
    ]
    return {
        "--weights": lambda: run(config, shapes, out, weights=str(file)),
        "--eval-only": lambda: run(config, shapes, out, weights=str(file), eval_only=True),
        "--resume": lambda: run(config, shapes, resumed, resume=True),
        "init_cfg": lambda: run(config, shapes, out, cfg_options=backbone),
    }


def measurements(config, shapes, out, file):
    return {
        "evaluate": lambda: evaluate(config, file, FEW, out, shapes),
        "filters": lambda: filters_at_work(config, file, shapes),
        "pair": lambda: predict_pair(config, file, 0, (1, 1), shapes),
    }


WAYS = ("--weights", "--eval-only", "--resume", "init_cfg", "evaluate", "filters", "pair")


@pytest.mark.parametrize(("attacks", "broken"), SOME)
@pytest.mark.parametrize("way", WAYS)
def test_no_checkpoint_runs_code(attacks, broken, way, tiny_config, shapes, tmp_path):
    for attack in attacks:
        file, trace = write_attack(attack, tmp_path)
        arguments = (tiny_config, shapes, tmp_path, file)
        with pytest.raises(ValueError, match="it names .*weights and plain data only"):
            ({**trainings(*arguments), **measurements(*arguments)})[way]()
        assert not trace.exists()


@pytest.mark.parametrize(("attacks", "broken"), SOME)
@pytest.mark.parametrize("way", ["--weights", "--eval-only", "--resume"])
def test_a_file_that_is_no_checkpoint_is_named(attacks, broken, way, tiny_config, shapes, tmp_path):
    for kind in broken:
        file = write_broken(kind, tmp_path)
        with pytest.raises((ValueError, FileNotFoundError), match=file.name) as error:
            trainings(tiny_config, shapes, tmp_path, file)[way]()
        assert "\n" not in str(error.value)


def test_training_does_not_start_from_weights_that_are_not_finite(tiny_config, shapes, tmp_path):
    torch.save({"state_dict": {"backbone.w": torch.tensor([torch.nan])}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="a.pth: 1 of 1 values of 'backbone.w' aren't finite"):
        run(tiny_config, shapes, tmp_path, weights=str(tmp_path / "a.pth"))


@pytest.mark.parametrize("kind", ["AAResNet", "AATIMMBackbone"])
@pytest.mark.parametrize("holds_filters", [False, True])
def test_filters_keep_their_start_beside_constants_and_a_file(kind, holds_filters, tmp_path):
    options = {
        "AAResNet": {"type": "AAResNet", "depth": 18, "base_channels": 8, "aa": {"groups": 2}},
        "AATIMMBackbone": {"type": "AATIMMBackbone", "model_name": "resnet10t"},
    }[kind]
    source = MODELS.build(options)
    for _, layer in filters_of(source):
        layer.norm.weight.data.fill_(0.5)
    state = source.state_dict()
    if not holds_filters:
        state = {key: v for key, v in state.items() if "filter." not in key}
    torch.save(state, tmp_path / "a.pth")
    entries = [
        {"type": "Constant", "val": 1, "layer": "BatchNorm2d"},
        {"type": "Pretrained", "checkpoint": str(tmp_path / "a.pth")},
    ]
    model = MODELS.build({**options, "init_cfg": entries})
    model.init_weights()
    assert model.init_cfg == entries
    scales = {float(layer.norm.weight.detach().max()) for _, layer in filters_of(model)}
    assert scales == {0.5 if holds_filters else 0.0}
    assert torch.equal(model.state_dict()[[*state][0]], state[[*state][0]])
