"""The laboratory's commands refuse what they can't do in one line that names value and remedy."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def said(monkeypatch, capsys):
    """Runs a command of a clone as `python` does, and gives what it printed, or its last line of
    what went wrong."""

    def run(command: str, status: int) -> str:
        path, *arguments = command.split()
        monkeypatch.setattr(sys, "argv", [path, *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.chdir(ROOT)
        found = 0
        try:
            runpy.run_path(str(ROOT / path), run_name="__main__")
        except SystemExit as stopped:
            found = stopped.code or 0
        out, err = capsys.readouterr()
        if isinstance(found, str):
            found, err = 1, err + found
        assert found == status, err
        return out if status == 0 else err.splitlines()[-1]

    return run


def test_benchmark_without_rounds(said):
    assert "0: give 1 or more" in said("tools/benchmark layer --rounds 0", 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_benchmark_without_a_gpu(said):
    assert "torch finds no GPU here" in said("tools/benchmark layer --device cuda", 2)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("resnet18 --aa filtre=blur", 1, "unknown AAConfig field 'filtre': known are filter"),
        ("resnet18 --aa blur", 1, "--aa blur: write KEY=VALUE"),
        ("aa_resnet18 --aa filter=blur", 1, "timm:aa_resnet18 is converted already: leave --aa"),
        ("vit_tiny_patch16_224", 1, "patch embedding"),
        ("resnet_18", 1, "timm has no model 'resnet_18'"),
    ],
)
def test_inspect_model(said, arguments, status, message):
    assert message in said(f"tools/inspect_model.py {arguments}", status)


def test_an_experiment_without_its_data_says_where_they_come_from(said, tmp_path):
    found = said(f"tools/experiments run camvid_r18 --data-root {tmp_path}", 1)
    assert f"no folder {tmp_path}/camvid" in found and "docs/recipes.md" in found


def test_a_finished_experiment_says_how_to_run_it_again(said, tmp_path):
    (tmp_path / "camvid").mkdir()
    command = f"tools/experiments run camvid_r18 --data-root {tmp_path} --variants blur --seeds 0"
    record = "docs/results/camvid_r18/blur_seed0/record.json"
    assert said(command, 0).strip().endswith(f"{record}; --again runs it anew")
    (tmp_path / "work/camvid_r18/blur_seed0").mkdir(parents=True)
    (tmp_path / "work/camvid_r18/blur_seed0/evaluate.json").touch()
    found = said(f"{command} --again --work-root {tmp_path}/work", 1)
    assert "holds the finished run: name another --work-root" in found


def test_shapes_that_cannot_be_written(said, tmp_path):
    (tmp_path / "file").touch()
    found = said(f"tools/make_shapes.py {tmp_path}/file/shapes", 2)
    assert "file/shapes can't be written (Not a directory): name another folder" in found


def test_the_tools_of_a_clone_take_the_options_that_they_took(said):
    found = said("tools/eval_consistency.py --weights a.pth --config-file nope.py", 1)
    assert "no config file nope.py" in found
    found = said("tools/train_net.py --config-file nope.yaml --eval-only SOLVER.BASE_LR 1", 1)
    assert "no config file nope.yaml" in found
