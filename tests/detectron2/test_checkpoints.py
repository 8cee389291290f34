"""No checkpoint runs code, whichever way Detectron2 comes to load it."""

import shutil

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import torch
from detectron2.engine import default_argument_parser

from aa_plugins.detectron2.evaluate import evaluate, filters_at_work
from aa_plugins.detectron2.train import main
from aa_plugins.evaluation.protocol import Protocol
from tests.attacks import SOME, write_attack, write_broken
from tests.detectron2.shared import LAZY, SHAPES, TINY

FEW = Protocol(stride=64, shifts=((1, 0),), controls=False)
PAIRS = [f"{key}={value}" for key, value in zip(TINY[::2], TINY[1::2])]


def train_yaml(file, out, *flags):
    options = ["MODEL.WEIGHTS", str(file), "OUTPUT_DIR", str(out), "SOLVER.MAX_ITER", "1"]
    arguments = ["--config-file", SHAPES, *flags, *TINY, *options]
    return main(default_argument_parser().parse_args(arguments))


def train_lazy(file, out, *flags):
    (out / "lazy.py").write_text(LAZY)
    options = [f"train.init_checkpoint={file}", f"train.output_dir={out}", "train.device=cpu"]
    arguments = ["--config-file", str(out / "lazy.py"), *flags, *options]
    return main(default_argument_parser().parse_args(arguments), lazy=True)


def resumed(train, file, out):
    if file.exists():
        shutil.copy(file, out / file.name) if file.parent != out else None
    (out / "last_checkpoint").write_text(file.name)
    return train("", out, "--resume")


WAYS = {
    "train": lambda file, out: train_yaml(file, out),
    "eval": lambda file, out: train_yaml(file, out, "--eval-only"),
    "resume": lambda file, out: resumed(train_yaml, file, out),
    "lazy": lambda file, out: train_lazy(file, out),
    "lazy eval": lambda file, out: train_lazy(file, out, "--eval-only"),
    "lazy resume": lambda file, out: resumed(train_lazy, file, out),
    "evaluate": lambda file, out: evaluate(SHAPES, file, FEW, out, overrides=PAIRS),
    "filters": lambda file, out: filters_at_work(SHAPES, file, overrides=PAIRS),
}


@pytest.mark.parametrize(("attacks", "broken"), SOME)
@pytest.mark.parametrize("way", WAYS)
def test_no_checkpoint_runs_code(attacks, broken, way, datasets, tmp_path):
    for attack in attacks:
        for suffix in ("pth", "pkl", "pyth"):
            file, trace = write_attack(attack, tmp_path, suffix)
            with pytest.raises(ValueError, match="it names .*weights and plain data only"):
                WAYS[way](file, tmp_path)
            assert not trace.exists()


@pytest.mark.parametrize(("attacks", "broken"), SOME)
@pytest.mark.parametrize("way", ["train", "eval", "resume", "lazy", "evaluate"])
def test_a_file_that_is_no_checkpoint_is_named(attacks, broken, way, datasets, tmp_path):
    for kind in broken:
        for suffix in ("pth", "pkl"):
            file = write_broken(kind, tmp_path, suffix)
            with pytest.raises((ValueError, FileNotFoundError), match=file.name) as error:
                WAYS[way](file, tmp_path)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("way", ["train", "eval", "evaluate"])
def test_weights_that_are_not_finite_are_named(way, datasets, tmp_path):
    weights = {"backbone.bottom_up.stem.conv1.weight": torch.full((64, 3, 7, 7), torch.nan)}
    torch.save({"model": weights}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="a.pth.*9408 of 9408 values of 'backbone.bottom_up.stem"):
        WAYS[way](tmp_path / "a.pth", tmp_path)
