"""The example of the README: mAISC beside AP in a Trainer of one's own, also while it trains."""

import json
import logging
import re

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aa_plugins.detectron2.config import load_yaml
from aa_plugins.detectron2.datasets import register_coco_paths
from tests.detectron2.shared import CONFIGS, SHAPES, TINY

README = (CONFIGS / "README.md").read_text()


@pytest.fixture
def example():
    (code,) = re.findall(r"```python\n(from pathlib.*?)```", README, re.DOTALL)
    scope = {}
    exec(code, scope)
    return scope["Trainer"]


def test_ap_and_maisc_come_from_one_test(example, datasets, tiny_weights, tmp_path, caplog):
    options = [*TINY, "MODEL.AA.FILTER", "adaptive", "SOLVER.MAX_ITER", "2"]
    options += ["TEST.EVAL_PERIOD", "1", "INPUT.MIN_SIZE_TEST", "160"]
    cfg = load_yaml(SHAPES, [*options, "OUTPUT_DIR", str(tmp_path)], tiny_weights)
    register_coco_paths(cfg)
    logger = logging.getLogger("detectron2.evaluation.testing")
    logger.addHandler(caplog.handler)
    try:
        trainer = example(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        results = trainer._last_eval_results
    finally:
        logger.removeHandler(caplog.handler)
    assert {"bbox", "segm", "shift_box", "shift_mask"} <= set(results)
    assert 0 <= results["shift_mask"]["mAISC"] <= 100
    assert all(isinstance(v, float) for task in results.values() for v in task.values())
    summary = json.loads(next(tmp_path.rglob("summary.json")).read_text())
    assert summary["mask"]["mAISC"]["value"] == results["shift_mask"]["mAISC"]
    assert summary["counts"]["images"] == 4
    assert "copypaste: Task: shift_mask" in caplog.text
    assert trainer.model.training
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"shift_box/shift", "shift_mask/shift"} <= set(events.Tags()["images"])


def test_what_no_image_defines_is_nan(tmp_path):
    from detectron2.evaluation import print_csv_format
    from detectron2.structures import Boxes, Instances

    from aa_plugins.detectron2 import ShiftConsistencyEvaluator, ShiftedInference
    from aa_plugins.evaluation.protocol import Protocol

    class Blind(torch.nn.Module):
        """Finds nothing."""

        def forward(self, inputs):
            found = [Instances(tuple(row["image"].shape[-2:])) for row in inputs]
            for instances in found:
                instances.pred_boxes = Boxes(torch.zeros(0, 4))
                instances.scores, instances.pred_classes = torch.zeros(0), torch.zeros(0).long()
                instances.pred_masks = torch.zeros(0, *instances.image_size, dtype=torch.bool)
            return [{"instances": instances} for instances in found]

    protocol = Protocol(stride=32, shifts=((1, 0),), controls=False)
    evaluator = ShiftConsistencyEvaluator(protocol, 1, tmp_path)
    evaluator.reset()
    image = {"image": torch.zeros(3, 128, 160, dtype=torch.uint8), "image_id": 1}
    image |= {"height": 128, "width": 160}
    evaluator.process([image], ShiftedInference(Blind(), protocol)([image]))
    results = evaluator.evaluate()
    assert results["shift_mask"]["mAISC"] != results["shift_mask"]["mAISC"]  # NaN
    print_csv_format(results)


def test_a_model_outside_of_the_wrapper_is_named(tmp_path):
    from aa_plugins.detectron2 import ShiftConsistencyEvaluator
    from aa_plugins.evaluation.protocol import Protocol

    evaluator = ShiftConsistencyEvaluator(Protocol(stride=32), 1, tmp_path)
    evaluator.reset()
    with pytest.raises(ValueError, match="evaluate ShiftedInference"):
        evaluator.process([{"image_id": 1}], [{"instances": []}])  # what Detectron2's models give


def test_the_wrapper_is_in_the_mode_of_its_model():
    from aa_plugins.detectron2 import ShiftedInference
    from aa_plugins.evaluation.protocol import Protocol

    for training in (True, False):
        model = torch.nn.Identity().train(training)
        assert ShiftedInference(model, Protocol(stride=32)).training == model.training == training
