"""Filters train whatever is frozen around them."""

import logging

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_backbone

from aa_plugins.detectron2.config import load_yaml
from aa_plugins.detectron2.freezing import log_filters, unfreeze_filters
from aa_plugins.layers import filters_of
from tests.detectron2.shared import SHAPES, TINY

OPTIONS = [*TINY, "MODEL.AA.FILTER", "adaptive", "MODEL.RESNETS.NORM", "FrozenBN"]


def backbone(freeze_at):
    return build_backbone(load_yaml(SHAPES, [*OPTIONS, "MODEL.BACKBONE.FREEZE_AT", freeze_at]))


def trains(layer):
    return isinstance(layer.norm, torch.nn.BatchNorm2d) and all(
        parameter.requires_grad for parameter in layer.parameters()
    )


def test_filters_of_frozen_stages_learn_and_nothing_else_there_does():
    model = backbone("5").train()
    frozen = {n: p.clone() for n, p in model.bottom_up.named_parameters() if not p.requires_grad}
    filters = dict(filters_of(model))
    assert len(filters) == 7 and all(map(trains, filters.values()))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    before = {name: layer.norm.weight.clone() for name, layer in filters.items()}
    for _ in range(2):
        loss = sum(
            (m * torch.randn_like(m)).sum() for m in model(torch.randn(1, 3, 64, 64)).values()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, layer in filters.items():
        assert not torch.equal(layer.norm.weight, before[name])
        assert layer.norm.running_mean.abs().sum() > 0
    own = dict(model.bottom_up.named_parameters())
    assert all(torch.equal(own[name], value) for name, value in frozen.items()) and frozen


def test_freezing_after_conversion_is_undone_for_filters_alone():
    model = backbone("0")
    with torch.no_grad():
        for _, layer in filters_of(model):
            layer.norm.running_mean.fill_(0.5)
    model.bottom_up.freeze(5)
    model = FrozenBatchNorm2d.convert_frozen_batchnorm(model)
    assert not any(trains(layer) for _, layer in filters_of(model))
    thawed = unfreeze_filters(model)
    assert thawed == [name for name, _ in filters_of(model)]
    for _, layer in filters_of(model):
        assert trains(layer) and (layer.norm.running_mean == 0.5).all()
    assert not model.bottom_up.stem.conv1.weight.requires_grad
    assert isinstance(model.bottom_up.stem.conv1.norm, FrozenBatchNorm2d)
    assert unfreeze_filters(model) == []


def test_what_is_trained_is_logged(caplog):
    with caplog.at_level(logging.INFO, "aa_plugins"):
        log_filters(backbone("2"))
        log_filters(build_backbone(load_yaml(SHAPES, [*TINY, "MODEL.AA.FILTER", "blur"])))
    messages = [record.message for record in caplog.records if "Anti-aliasing:" in record.message]
    assert "training 7 filters" in messages[0] and "stem.postfilter" in messages[0]
    assert "no filter has parameters" in messages[1]
