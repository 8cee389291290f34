"""Checkpoint files: weights come out of every wrapper, and nothing that a file names is run."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from aa_plugins import antialias
from aa_plugins.checkpoints import (
    AVERAGES,
    ENTRIES,
    History,
    check_finite,
    read_checkpoint,
    read_pickle,
    weights_in,
)
from aa_plugins.surgery import load_plain_or_converted
from tests.attacks import ATTACKS, BROKEN, write_attack, write_broken


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("suffix", ["pth", "pkl"])
def test_no_file_runs_code(attack: str, suffix: str, tmp_path: Path) -> None:
    file, trace = write_attack(attack, tmp_path, suffix)
    read = read_checkpoint if suffix == "pth" else read_pickle
    with pytest.raises(ValueError, match=f"{file}.*it names .*weights and plain data only"):
        read(file)
    assert not trace.exists()


def test_the_attacks_are_real(tmp_path: Path) -> None:
    for attack in ATTACKS:
        file, trace = write_attack(attack, tmp_path, "pth")
        with contextlib.suppress(AttributeError):  # once its function was called
            torch.load(file, weights_only=False)
        assert trace.exists(), attack
        trace.unlink()


@pytest.mark.parametrize("suffix", ["pth", "pkl"])
@pytest.mark.parametrize("kind", BROKEN)
def test_files_of_another_kind_are_named_in_one_line(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    file = write_broken(kind, tmp_path, suffix)
    read = read_checkpoint if suffix == "pth" else read_pickle
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_mmengine_keeps_is_read_without_it(tmp_path: Path) -> None:
    logging_module = pytest.importorskip("mmengine.logging")
    buffer = logging_module.HistoryBuffer([1.0, 2.0], [1, 1])
    hub = {"log_scalars": {"loss": buffer}, "lr": np.float64(0.1), "n": np.int32(3)}
    torch.save({"message_hub": hub, "state_dict": {"w": torch.ones(2)}}, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    assert type(found["message_hub"]["log_scalars"]["loss"]) is History
    assert found["message_hub"]["lr"] == 0.1
    own = read_checkpoint(tmp_path / "a.pth", logging_module.HistoryBuffer)
    restored = own["message_hub"]["log_scalars"]["loss"]
    assert restored.statistics("mean") == 1.5
    assert restored.statistics("max") == 2


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_a_plain_pickle(protocol: int, tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.float64(2)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol))
    found = read_pickle(tmp_path / "a.pkl")
    assert np.array_equal(found["a"], arrays["a"]) and found["b"] == 2


def test_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "a.safetensors")["w"], torch.ones(2))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
@pytest.mark.parametrize("entry", [None, *ENTRIES])
def test_weights_come_out_of_every_wrapper(prefix: str, entry: str | None, tmp_path: Path) -> None:
    model = timm.create_model("resnet10t", num_classes=2)
    state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    args = argparse.Namespace(lr=0.1)
    torch.save({entry: state, "args": args, "epoch": 3} if entry else state, tmp_path / "a.pth")
    other = timm.create_model("resnet10t", num_classes=2)
    antialias(other, {"filter": "adaptive"})
    load_plain_or_converted(other, tmp_path / "a.pth")
    assert torch.equal(other.fc.weight, model.fc.weight)


def test_compiled_parts_and_averaged_models() -> None:
    inner = {"backbone._orig_mod.w": torch.ones(1), "head.w": torch.ones(1)}
    assert set(weights_in(inner, ("backbone.w", "head.w"))) == {"backbone.w", "head.w"}
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))
    assert set(weights_in(averaged.state_dict(), ("weight", "bias"))) == {"weight", "bias"}


def test_a_network_may_have_such_names_itself() -> None:
    state = {"model.weight": torch.ones(1)}
    assert set(weights_in(state, ("model.weight",))) == {"model.weight"}


@pytest.mark.parametrize("average", AVERAGES)
def test_averages_beside_the_weights_are_named(
    average: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = {"state_dict": {"w": torch.ones(1)}, average: {"w": torch.zeros(1)}}
    with caplog.at_level(logging.WARNING):
        assert weights_in(checkpoint, ("w",), "a.pth")["w"] == 1
    assert f"a.pth holds weights under '{average}' too" in caplog.text


def test_averages_alone_are_named() -> None:
    with pytest.raises(ValueError, match="holds dict 'state_dict_ema' where weights were expected"):
        weights_in({"state_dict_ema": {"w": torch.ones(1)}}, ("w",))


def test_weights_that_are_not_finite_are_named() -> None:
    mask = torch.full((2, 2), -torch.inf)
    own = {"w": torch.zeros(3), "mask": mask}
    check_finite({"w": torch.ones(3), "mask": mask, "n": torch.tensor(1)}, own)
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="a.pth: 1 of 3 values of 'w' aren't finite"):
            check_finite({"w": torch.tensor([1, value, 2])}, own, "a.pth")
    with pytest.raises(ValueError, match="'mask'"):
        check_finite({"mask": torch.full((2, 2), torch.nan)}, own)


def test_nothing_is_loaded_of_weights_that_are_not_finite() -> None:
    model = timm.create_model("resnet10t", num_classes=2)
    antialias(model, {"filter": "blur"})
    state = {key: torch.full_like(value, torch.nan) if value.is_floating_point() else value
             for key, value in model.state_dict().items()}  # fmt: skip
    with pytest.raises(ValueError, match="of 'conv1.*' aren't finite"):
        load_plain_or_converted(model, state)
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_class_that_the_user_trusts_is_let_in(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "where": Path("a")}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="add_safe_globals"):
        read_checkpoint(tmp_path / "a.pth")
    with torch.serialization.safe_globals([type(Path("a"))]):
        assert read_checkpoint(tmp_path / "a.pth")["where"] == Path("a")


def test_the_list_of_names_is_only_there_while_reading(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "a.pth")
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == before
    assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") is None
