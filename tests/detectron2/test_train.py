"""Training: filters learn, an interrupted run goes on exactly, both kinds of config run."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import torch

from aa_plugins.detectron2.config import load_yaml
from aa_plugins.detectron2.train import Trainer, main
from tests.detectron2.shared import CONFIGS, SHAPES, TINY

OPTIONS = [*TINY, "MODEL.AA.FILTER", "adaptive", "SOLVER.CHECKPOINT_PERIOD", "2"]


def run(out, *options, config=SHAPES, lazy=False, **flags):
    """What tools/train_net.py does, in this process."""
    args = {"eval_only": False, "resume": False, "weights": None, **flags}
    if not lazy:
        options = [*OPTIONS, "OUTPUT_DIR", str(out), *options]
    args = argparse.Namespace(config_file=str(config), opts=list(options), **args)
    return main(args, lazy)


def checkpoint(folder):
    name = (folder / "last_checkpoint").read_text()
    return torch.load(folder / name, weights_only=False)


def test_a_run_trains_its_filters_resumes_exactly_and_is_evaluated(datasets, tmp_path):
    results = run(tmp_path, "SOLVER.MAX_ITER", "2")
    assert set(results) == {"bbox", "segm"}
    first = checkpoint(tmp_path)
    assert first["iteration"] == 1
    moved = [
        k for k, v in first["model"].items() if "filter.norm.weight" in k and v.abs().sum() > 0
    ]
    assert len(moved) == 7
    trainer = Trainer(load_yaml(SHAPES, [*OPTIONS, "OUTPUT_DIR", str(tmp_path)]))
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2
    restored = trainer.model.state_dict()
    assert all(torch.equal(value, restored[key]) for key, value in first["model"].items())
    saved = first["trainer"]["_trainer"]["optimizer"]["state"]
    momenta = trainer.optimizer.state_dict()["state"]
    assert len(saved) == len(momenta) > 0
    for key, state in saved.items():
        assert torch.equal(state["momentum_buffer"], momenta[key]["momentum_buffer"])
    assert run(tmp_path, eval_only=True, resume=True).keys() == results.keys()
    assert "training 7 filters" in (tmp_path / "log.txt").read_text()


@pytest.mark.slow
def test_a_killed_run_goes_on(datasets, tmp_path):
    command = [sys.executable, "tools/train_net.py", "--config-file", SHAPES, "--resume", *OPTIONS]
    command += ["OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", "40"]
    environment = {**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=CONFIGS.parents[1], env=environment)
    while not (tmp_path / "last_checkpoint").exists():
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = checkpoint(tmp_path)["iteration"]
    subprocess.run(command, cwd=CONFIGS.parents[1], env=environment, check=True)
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert 0 < saved < checkpoint(tmp_path)["iteration"] == 39
    assert rows[-1]["iteration"] == 40


def test_a_lazy_config_trains_and_is_evaluated(datasets, tmp_path):
    config = tmp_path / "tiny.py"
    config.write_text(LAZY)
    output = f"train.output_dir={tmp_path}"
    results = run(tmp_path, output, config=config, lazy=True)
    assert "bbox" in results
    assert checkpoint(tmp_path)["iteration"] == 1
    again = run(tmp_path, output, config=config, lazy=True, eval_only=True, resume=True)
    assert again.keys() == results.keys()


LAZY = """
from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config

from aa_plugins.detectron2 import antialias_backbone, coco_dataset

_zoo = get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
model, dataloader, train = _zoo.model, _zoo.dataloader, _zoo.train
optimizer, lr_multiplier = _zoo.optimizer, _zoo.lr_multiplier
_bottom_up = model.backbone.bottom_up
_bottom_up.stages.depth = 18
del _bottom_up.stages["stride_in_1x1"]
model.backbone.in_features = list(_bottom_up.out_features)
model.backbone.bottom_up = L(antialias_backbone)(backbone=_bottom_up, aa=dict(filter="adaptive"))
model.proposal_generator.pre_nms_topk = model.proposal_generator.post_nms_topk = (30, 30)
model.roi_heads.num_classes = 7
model.roi_heads.batch_size_per_image = 8
for _split, _name in ((dataloader.train, "train"), (dataloader.test, "val")):
    _split.dataset = L(coco_dataset)(
        name=f"lazy_shapes_{_name}",
        json_file=f"shapes/instances_{_name}.json",
        image_root=f"shapes/{_name}",
        filter_empty=_name == "train",
    )
    _split.mapper.augmentations[0].short_edge_length = (96, 96)
    _split.num_workers = 0
dataloader.train.mapper.instance_mask_format = "bitmask"
dataloader.train.total_batch_size = 2
dataloader.evaluator.dataset_name = "lazy_shapes_val"
train.max_iter = 2
train.init_checkpoint = ""
"""


def test_the_right_evaluator_is_chosen_and_an_unknown_kind_named(datasets):
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import CityscapesInstanceEvaluator

    from aa_plugins.detectron2.train import build_evaluator

    name = "cityscapes_fine_instance_seg_val"
    assert isinstance(build_evaluator(name, "unused"), CityscapesInstanceEvaluator)
    MetadataCatalog.get("odd_dataset").set(evaluator_type="lvis")
    with pytest.raises(NotImplementedError, match="odd_dataset.*COCO_PATHS"):
        build_evaluator("odd_dataset", "unused")
