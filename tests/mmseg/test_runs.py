import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")

import cv2
import torch
from mmengine.logging import HistoryBuffer
from mmengine.visualization import Visualizer

from aa_plugins.checkpoints import read_checkpoint
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import read_records
from aa_plugins.layers import filters_of
from aa_plugins.mmseg.amp import CpuAmpOptimWrapper
from aa_plugins.mmseg.evaluate import (
    evaluate,
    filters_at_work,
    predict_pair,
    protocol_of,
    size_of,
)
from aa_plugins.mmseg.runs import load_config
from tests.mmseg.running import ROOT, environment, run, summary_of


def test_one_test_run_gives_accuracy_and_consistency(tested):
    folder, metrics = tested
    assert metrics["shift/mIoU"] == pytest.approx(metrics["mIoU"], abs=0.02)
    assert 20 < metrics["shift/mASSC"] < 99.9
    summary = summary_of(folder)
    assert summary["mASSC"]["images"] == 5
    assert summary["controls"]["noise_floor"]["value"] == 100
    low, value, high = (summary["mASSC"][key] for key in ("low", "value", "high"))
    assert low <= value <= high
    # Runs of one process share mmengine's visualizer, whose folder is that of the first.
    backend = Visualizer.get_current_instance().get_backend("LocalVisBackend")
    drawn = sorted(Path(backend._img_save_dir).glob("shift_agreement_*.png"))
    assert drawn and cv2.imread(str(drawn[0])).std() > 0


def test_size_and_filters_of_a_config(tested, tiny_config, shapes):
    folder, _ = tested
    found = filters_at_work(tiny_config, folder / "weights.pth", shapes, images=2)
    assert len(found) == 5
    # By the triangle inequality their own mean is at most as far from the blur as they are. Four
    # iterations hardly move them: some not at all.
    assert all(0 <= site["spread"] <= 2 * site["departure"] < 0.2 for site in found.values())
    assert any(site["spread"] > 0 for site in found.values())
    plain, filtered = (
        size_of(tiny_config, [f"model.backbone.aa.filter={name}"]) for name in ("none", "adaptive")
    )
    assert filtered["parameters"] > plain["parameters"]
    assert filtered["macs"] > plain["macs"] > 1e6


def test_training_moved_every_filter(trained):
    folder, _ = trained
    state = read_checkpoint(folder / "iter_4.pth")["state_dict"]
    scales = [value for key, value in state.items() if key.endswith("filter.norm.weight")]
    assert len(scales) == 5
    assert all(scale.abs().max() > 0 for scale in scales)


def test_resumed_training_goes_on_where_it_was(trained, tiny_config, shapes, tmp_path):
    folder, _ = trained
    (tmp_path / "iter_2.pth").write_bytes((folder / "iter_2.pth").read_bytes())
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_2.pth"))
    run(tiny_config, shapes, tmp_path, resume=True)
    resumed = read_checkpoint(tmp_path / "iter_4.pth", HistoryBuffer)
    assert resumed["meta"]["iter"] == 4
    losses = [
        checkpoint["message_hub"]["log_scalars"]["train/loss"].data[0]
        for checkpoint in (resumed, read_checkpoint(folder / "iter_4.pth", HistoryBuffer))
    ]
    assert len(losses[0]) == 4
    assert losses[0][:2].tolist() == losses[1][:2].tolist()
    assert resumed["param_schedulers"] == read_checkpoint(folder / "iter_4.pth")["param_schedulers"]


def test_automatic_mixed_precision_trains_on_gpu_and_cpu(tiny_config, shapes, tmp_path):
    options = ["train_cfg.max_iters=1", "train_cfg.val_interval=10"]
    options += ["test_dataloader.dataset.indices=1"]
    metrics = run(tiny_config, shapes, tmp_path, amp=True, cfg_options=options)
    assert metrics["shift/mASSC"] > 0


def test_the_cpu_computes_its_loss_in_bfloat16():
    wrapper = CpuAmpOptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1))
    layer = torch.nn.Conv2d(1, 1, 1)
    with wrapper.optim_context(layer):
        assert layer(torch.ones(1, 1, 1, 1)).dtype == torch.bfloat16
    assert layer(torch.ones(1, 1, 1, 1)).dtype == torch.float32


def test_the_tool_measures_what_the_test_run_measures(tested, tiny_config, shapes, tmp_path):
    folder, _ = tested
    protocol = Protocol.from_dict(protocol_of(tiny_config))
    found = evaluate(tiny_config, folder / "weights.pth", protocol, tmp_path, shapes)
    assert found == read_records(folder / "shift_consistency")[1]


@pytest.mark.slow
def test_a_killed_evaluation_resumes_to_the_same_numbers(tested, tiny_config, shapes, tmp_path):
    folder, _ = tested
    command = [sys.executable, "tools/eval_consistency.py", "--config-file", str(tiny_config)]
    command += ["--weights", str(folder / "weights.pth"), "--data-root", str(shapes)]
    command += ["--out", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    records = tmp_path / "tiny" / "records.0of1.jsonl"
    while process.poll() is None:
        if records.exists() and records.read_bytes().count(b"\n") >= 3:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    process.wait()
    before = records.read_bytes()
    assert before.count(b"\n") < 6, "it finished before it could be killed"
    subprocess.run([*command, "--resume"], cwd=ROOT, env=environment(), check=True)
    kept = before[: before.rindex(b"\n") + 1]
    assert records.read_bytes().startswith(kept)
    assert read_records(tmp_path / "tiny")[1] == read_records(folder / "shift_consistency")[1]
    saved = json.loads((tmp_path / "consistency.json").read_text())
    assert saved["results"]["tiny"]["mASSC"] == summary_of(folder)["mASSC"]


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tested, tiny_config, shapes, tmp_path):
    folder, metrics = tested
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += ["tools/train_net.py", "--config-file", str(tiny_config), "--eval-only"]
    command += ["--weights", str(folder / "weights.pth"), "--data-root", str(shapes)]
    command += ["--work-dir", str(tmp_path), "--launcher", "pytorch"]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True)
    assert summary_of(tmp_path) == summary_of(folder)
    found = json.loads(next(tmp_path.glob("20*/*.json")).read_text())
    assert found["mIoU"] == metrics["mIoU"]


def test_the_picture_of_flips_has_aligned_maps(trained, tiny_config, shapes):
    folder, _ = trained
    pair = predict_pair(tiny_config, folder / "iter_4.pth", 0, (1, 1), shapes)
    size = pair.image.shape[:2]
    assert pair.labels[0].shape == pair.labels[1].shape == pair.truth.shape == size
    assert len(pair.class_names) == len(pair.palette) == 8


def test_weights_of_another_architecture_are_refused(tiny_config, shapes, tmp_path):
    torch.save({"state_dict": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="another architecture"):
        run(tiny_config, shapes, tmp_path, eval_only=True, weights=str(tmp_path / "other.pth"))
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        run(tiny_config, shapes, tmp_path, eval_only=True, weights=str(tmp_path / "none.pth"))
    with pytest.raises(ValueError, match="--weights"):
        run(tiny_config, shapes, tmp_path, eval_only=True)


def test_missing_data_is_named_before_anything_is_built(tiny_config, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*train_dataloader.*--data-root"):
        load_config(tiny_config, tmp_path, data_root=tmp_path / "nowhere")


def test_a_prediction_that_is_not_finite_names_the_image(trained, tiny_config, shapes, tmp_path):
    folder, _ = trained
    checkpoint = read_checkpoint(folder / "iter_4.pth")["state_dict"]
    checkpoint["decode_head.conv_seg.weight"][:] = 3e38  # finite, but no sum of it
    torch.save(checkpoint, tmp_path / "broken.pth")
    protocol = Protocol.from_dict(protocol_of(tiny_config))
    with pytest.raises(ValueError, match=r"val/000001\.png.*isn't finite"):
        evaluate(tiny_config, tmp_path / "broken.pth", protocol, tmp_path, shapes)


def test_a_crop_larger_than_the_image_is_refused(trained, tiny_config, shapes, tmp_path):
    folder, _ = trained
    with pytest.raises(ValueError, match="too small"):
        evaluate(tiny_config, folder / "iter_4.pth", Protocol(stride=64), tmp_path, shapes)


def test_filters_of_the_tiny_network_are_where_the_paper_has_them(tiny_config):
    from mmengine.config import Config
    from mmseg.registry import MODELS

    model = MODELS.build(Config.fromfile(str(tiny_config)).model)
    names = [name for name, _ in filters_of(model)]
    assert names == [
        "backbone.maxpool.postfilter",
        "backbone.layer2.0.conv2.prefilter",
        "backbone.layer2.0.downsample.0.prefilter",
        "backbone.layer3.0.conv2.prefilter",
        "backbone.layer3.0.downsample.0.prefilter",
    ]
