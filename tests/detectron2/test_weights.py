"""Checkpoints of every format load into the converted model; only filters are missing."""

import pickle

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import numpy as np
import timm
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from aa_plugins.detectron2 import TIMMBackbone
from aa_plugins.detectron2.config import load_yaml
from aa_plugins.detectron2.weights import AuditedCheckpointer, load_detectron2_weights
from aa_plugins.layers import filters_of
from tests.detectron2.shared import CONFIGS, SHAPES, TINY, parameters_of_filters, scramble

COCO = str(CONFIGS / "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_adaptive.yaml")


def model_of(*options, config=SHAPES):
    return build_model(load_yaml(config, [*TINY, *options]))


def caffe2_names(state):
    """Keys of a plain ResNet-50 as in detectron2://ImageNetPretrained/MSRA/R-50.pkl."""
    branches = {
        "shortcut": "branch1",
        "conv1": "branch2a",
        "conv2": "branch2b",
        "conv3": "branch2c",
    }
    norms = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    renamed = {}
    for key, value in state.items():
        stage, *middle, field = key.split(".")
        conv = middle[-2] if middle[-1] == "norm" else middle[-1]
        if stage == "stem":
            name = "conv1" if middle[-1] != "norm" else "res_conv1_bn"
        else:
            name = f"{stage}_{middle[0]}_{branches[conv]}" + ("_bn" * (middle[-1] == "norm"))
        if middle[-1] == "norm":
            if field in ("running_mean", "running_var"):
                continue
            name = f"{name}_{norms[field]}"
        else:
            name = f"{name}_w"
        renamed[name] = value.numpy()
    return {**renamed, "fc1000_w": np.zeros((1000, 2048), np.float32)}


def torchvision_names(state):
    """Keys as torchvision's ResNet-50 has them, renamed by Detectron2's conversion script."""
    return {key: value.numpy() for key, value in state.items()} | {
        "fc.weight": np.zeros((1000, 2048), np.float32)
    }


@pytest.mark.parametrize(
    ("rename", "extra"),
    [
        pytest.param(caffe2_names, None, id="MSRA"),
        pytest.param(
            torchvision_names,
            {"__author__": "torchvision", "matching_heuristics": True},
            id="torchvision",
        ),
    ],
)
def test_imagenet_weights_load_with_filters_missing(rename, extra, tmp_path):
    source = model_of("MODEL.AA.FILTER", "none", config=COCO).backbone.bottom_up
    scramble(source)
    state = rename(source.state_dict())
    path = str(tmp_path / "R-50.pkl")
    with open(path, "wb") as file:
        pickle.dump({"model": state, **extra} if extra else state, file)
    model = model_of(config=COCO)
    checkpointer = AuditedCheckpointer(model)
    checkpointer.load(path)
    loaded = model.backbone.bottom_up.state_dict()
    prefix = "backbone.bottom_up."
    missing = {key.removeprefix(prefix) for key in checkpointer.missing if key.startswith(prefix)}
    assert missing - parameters_of_filters(model.backbone.bottom_up) <= statistics(source, extra)
    for key, value in source.state_dict().items():
        if key not in statistics(source, extra):
            assert torch.equal(loaded[key], value), key


def statistics(source, extra):
    """Caffe2 folded the running statistics into scale and bias: its files have none."""
    fields = ("running_mean", "running_var")
    return set() if extra else {key for key in source.state_dict() if key.endswith(fields)}


@pytest.mark.parametrize("name", ["convnext_atto", "swin_tiny_patch4_window7_224"])
def test_timm_weights_load_with_filters_missing(name, tmp_path):
    source = timm.create_model(name)
    path = tmp_path / "timm.pth"
    torch.save(source.state_dict(), path)
    holder = torch.nn.ModuleDict({"backbone": TIMMBackbone(name)})
    checkpointer = AuditedCheckpointer(holder)
    checkpointer.load(f"{path}?matching_heuristics=True")
    assert set(checkpointer.missing) == parameters_of_filters(holder)
    own, state = holder["backbone"].network.state_dict(), source.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in state.items() if key in own)


@pytest.mark.parametrize("suffix", ["pkl", "pth"])
def test_a_model_zoo_checkpoint_loads_with_filters_missing(suffix, tmp_path):
    source = model_of("MODEL.AA.FILTER", "none")
    path = tmp_path / f"model_final.{suffix}"
    if suffix == "pth":
        torch.save({"model": source.state_dict()}, path)
    else:
        state = {key: value.numpy() for key, value in source.state_dict().items()}
        path.write_bytes(pickle.dumps({"model": state, "__author__": "Detectron2 Model Zoo"}))
    model = model_of("MODEL.AA.FILTER", "adaptive", "MODEL.AA.P6", "True")
    checkpointer = AuditedCheckpointer(model)
    checkpointer.load(str(path))
    assert set(checkpointer.missing) == parameters_of_filters(model)
    assert load_detectron2_weights(model, str(path)) == [name for name, _ in filters_of(model)]


def test_a_converted_models_checkpoint_restores_its_filters(tmp_path):
    source = model_of("MODEL.AA.FILTER", "adaptive")
    scramble(source)
    DetectionCheckpointer(source, str(tmp_path)).save("model_final")
    model = model_of("MODEL.AA.FILTER", "adaptive")
    assert load_detectron2_weights(model, str(tmp_path / "model_final.pth")) == []
    restored = model.state_dict()
    assert all(torch.equal(value, restored[key]) for key, value in source.state_dict().items())


def test_weights_of_another_architecture_are_named(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"model": {"backbone.bottom_up.res2.0.conv9.weight": torch.zeros(1)}}, path)
    with pytest.raises(ValueError, match="another architecture"):
        load_detectron2_weights(model_of(), str(path))
