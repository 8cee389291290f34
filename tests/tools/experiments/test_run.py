"""Steps run once, go on after an interruption, and leave a record."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from aa_plugins.datasets import write_shapes
from aa_plugins.evaluation.records import read_records
from aa_plugins.report.page import write_json
from experiments import run as runner
from experiments.plan import Run, load

ROOT = Path(__file__).resolve().parents[3]


def test_a_step_is_run_once_and_its_cost_kept(tmp_path):
    command = ["-c", "open('trace', 'a').write('x'); print(bytearray(50_000_000)[0])"]
    command[1] += "; sum(range(20_000_000))"  # cost is kept to a tenth of a second
    command[1] = command[1].replace("trace", str(tmp_path / "trace"))
    cost = runner.step("train", tmp_path, command)
    assert runner.step("train", tmp_path, command) == cost
    assert (tmp_path / "trace").read_text() == "x"
    assert cost["peak_memory_mib"] > 50 and 0 < cost["cpu_seconds"] and not cost["resumed"]


def test_a_failed_step_names_its_log_and_is_run_again(tmp_path):
    with pytest.raises(RuntimeError, match=r"train failed \(3\), see .*train.log:\nwhy"):
        runner.step("train", tmp_path, ["-c", "print('why'); raise SystemExit(3)"])
    assert runner.step("train", tmp_path, ["-c", ""])["resumed"]


def test_overrides_of_both_hosts():
    run = Run(load(ROOT / "configs/experiments/camvid_tuning.yaml"), "bank-3-5", seed=0)
    assert runner.mmseg_overrides(run) == [
        "randomness.seed=0",
        "model.backbone.aa.filter=bank",
        "model.backbone.aa.kernel_size=5",
        "model.backbone.aa.taps=[3,5]",
    ]
    run = Run(load(ROOT / "configs/experiments/pennfudan_r18.yaml"), "blur", seed=1)
    assert runner.detectron2_overrides(run, Path("w"), Path("d")) == [
        "SEED=1",
        "OUTPUT_DIR=w",
        "SOLVER.AMP.ENABLED=True",
        "MODEL.AA.FILTER=blur",
    ]


def test_the_hosts_own_precisions_are_those_of_its_last_test(tmp_path):
    lines = [{"bbox/AP": 1.0, "segm/AP": 2.0, "iteration": 5}, {"loss": 3.0}, {"bbox/AP": 4.0}]
    (tmp_path / "metrics.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert runner.host_metrics(tmp_path) == {"bbox/AP": 4.0, "segm/AP": 2.0}
    assert runner.host_metrics(tmp_path / "elsewhere") == {}


def test_the_commit_is_that_of_the_code_that_ran(tmp_path, monkeypatch):
    """Read when a step begins: code that changes while it runs isn't the code that ran."""
    commits = iter(["first", "second", "second"])
    monkeypatch.setattr(runner, "commit", lambda: next(commits))
    with pytest.raises(RuntimeError):
        runner.step("train", tmp_path, ["-c", "raise SystemExit(3)"])
    assert runner.step("train", tmp_path, ["-c", ""])["commit"] == "first second"
    assert runner.step("evaluate", tmp_path, ["-c", ""])["commit"] == "second"


@pytest.mark.slow
def test_a_small_experiment_ends_in_a_record_and_another_goes_on_from_it(tmp_path):
    pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")
    from aa_plugins.checkpoints import read_checkpoint

    write_shapes(tmp_path / "data/shapes", "camvid", train=4, val=2, size=(112, 144))
    base = ROOT / "configs/mmseg/deeplabv3plus_r18_shapes_baseline.py"
    schedule = "train_cfg = dict(max_iters=2, val_interval=2)\n"
    schedule += "train_dataloader = dict(batch_size=2)\n"
    (tmp_path / "tiny.py").write_text(f'_base_ = "{base}"\n{schedule}')
    declaration = {
        "title": "Small",
        "config": str(tmp_path / "tiny.py"),
        "data": "shapes",
        "task": "semantic",
        "seeds": [5],
        "columns": ["mASSC"],
        "variants": {"bank": {"filter": "bank", "taps": [3, 5]}},
    }
    write_json(tmp_path / "small.yaml", declaration)
    (run,) = load(tmp_path / "small.yaml").runs()
    roots = [tmp_path / name for name in ("data", "work", "results")]
    folder = runner.execute(run, *roots)
    record = json.loads((folder / "record.json").read_text())
    assert record["seed"] == 5 and record["aa"]["taps"] == [3, 5]
    assert record["size"]["macs"] > 1e8 and record["training"]["cpu_seconds"] > 0
    assert 0 < record["summary"]["mASSC"]["value"] <= 100
    assert [row["image_id"] for row in read_records(folder)[1]] == [
        "images/val/000001.png",
        "images/val/000002.png",
    ]
    still = {"options": ["optim_wrapper.optimizer.lr=0"], "variants": {"free": {"filter": "none"}}}
    start = {"start": {"experiment": "small", "variant": "bank"}}
    write_json(tmp_path / "more.yaml", declaration | still | start)
    (more,) = load(tmp_path / "more.yaml").runs()
    with pytest.raises(FileNotFoundError, match="run small --variants bank --seeds 5"):
        runner.starting_weights(more, tmp_path / "elsewhere")
    runner.execute(more, *roots)
    before, after = (
        read_checkpoint(runner.weights_of(roots[1] / name))["state_dict"]
        for name in ("small/bank_seed5", "more/free_seed5")
    )
    weights = [key for key in after if key.endswith("weight")]
    assert weights and all(torch.equal(before[key], after[key]) for key in weights)
    # What it started from isn't needed again.
    shutil.rmtree(roots[1] / "small")
    assert runner.execute(more, *roots) == roots[2] / "more/free_seed5"
