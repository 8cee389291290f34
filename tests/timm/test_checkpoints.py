"""No checkpoint runs code where timm loads it."""

import pytest
import timm
import torch

import aa_plugins.timm  # noqa: F401  only registration
from tests.attacks import ATTACKS, BROKEN, write_attack, write_broken


def by_file(path):
    overlay = {"file": str(path)}
    return timm.create_model("aa_resnet10t", pretrained=True, pretrained_cfg_overlay=overlay)


def by_path(path):
    return timm.create_model("aa_resnet10t", checkpoint_path=str(path))


@pytest.mark.parametrize("load", [by_file, by_path])
def test_no_checkpoint_runs_code(load, tmp_path):
    for attack in ATTACKS:
        file, trace = write_attack(attack, tmp_path)
        with pytest.raises((ValueError, RuntimeError)):
            load(file)
        assert not trace.exists()


def test_a_file_that_is_no_checkpoint_is_named(tmp_path):
    for kind in BROKEN:
        file = write_broken(kind, tmp_path)
        with pytest.raises((ValueError, FileNotFoundError), match=file.name):
            by_file(file)


@pytest.mark.parametrize("load", [by_file, by_path])
def test_weights_that_are_not_finite_are_named(load, tmp_path):
    state = timm.create_model("resnet10t").state_dict()
    state["fc.bias"][3] = torch.nan
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="1 of 1000 values of 'fc.bias' aren't finite"):
        load(tmp_path / "a.pth")


def test_the_average_is_taken_as_timm_does(tmp_path):
    model = timm.create_model("aa_resnet10t")
    state, average = model.state_dict(), {**model.state_dict(), "fc.bias": torch.ones(1000)}
    torch.save({"state_dict": state, "state_dict_ema": average}, tmp_path / "a.pth")
    assert torch.equal(by_file(tmp_path / "a.pth").fc.bias, torch.ones(1000))
