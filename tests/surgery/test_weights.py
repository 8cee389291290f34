"""Loading checkpoints into a converted network, and errors for those that don't fit."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.surgery import filter_keys, load_plain_or_converted


def converted(**options) -> nn.Module:
    model = timm.create_model("resnet10t", num_classes=4)
    antialias(model, AAConfig(**options))
    return model


def changed(model: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict in which nothing is as it is in `model`."""
    return {
        key: value + 1 if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }


def test_filter_keys_are_what_conversion_added():
    plain = set(timm.create_model("resnet10t", num_classes=4).state_dict())
    model = converted()
    assert set(model.state_dict()) - plain == filter_keys(model) != set()
    assert filter_keys(converted(filter="blur")) == set()


@pytest.mark.parametrize("wrapped", [None, "state_dict", "model"])
def test_plain_checkpoint_leaves_the_filters_at_their_start(tmp_path, wrapped):
    model = converted()
    start = {key: model.state_dict()[key].clone() for key in filter_keys(model)}
    state = changed(timm.create_model("resnet10t", num_classes=4))
    torch.save({wrapped: state} if wrapped else state, tmp_path / "plain.pth")
    missing = load_plain_or_converted(model, tmp_path / "plain.pth")
    assert {key.rsplit(".", 2)[0] for key in start if key.endswith("conv.weight")} == set(missing)
    for key, value in model.state_dict().items():
        assert torch.equal(value, start[key] if key in start else state[key])


def test_converted_checkpoint_fills_everything():
    model = converted()
    state = changed(model)
    assert load_plain_or_converted(model, state) == []
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("fc.weight"), "the checkpoint lacks 'fc.weight'.*another architec"),
        (lambda s: s.update({"head.weight": s["fc.weight"]}), "ResNet has no place for 'head.wei"),
        (lambda s: s.update({"fc.bias": torch.zeros(9)}), "another shape at 'fc.bias'"),
        (lambda s: s.pop("maxpool.postfilter.norm.bias"), "lacks 'maxpool.postfilter.norm.bias'"),
    ],
)
def test_checkpoint_that_does_not_fit_is_an_error_and_loads_nothing(change, message):
    model = converted()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = changed(model)
    change(state)
    with pytest.raises(ValueError, match=message):
        load_plain_or_converted(model, state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_path_is_named_in_the_error(tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(timm.create_model("resnet18").state_dict(), path)
    with pytest.raises(ValueError, match=f"{path}.*another architecture than ResNet"):
        load_plain_or_converted(converted(), path)
    with pytest.raises(FileNotFoundError, match=f"no checkpoint {tmp_path / 'missing.pth'}"):
        load_plain_or_converted(converted(), tmp_path / "missing.pth")
