"""What measuring views costs beside their forward passes, and that it keeps nothing."""

import gc
import time
import tracemalloc

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import numpy as np
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances

from aa_plugins.detectron2.config import load_yaml
from aa_plugins.detectron2.consistency import ShiftConsistencyEvaluator, ShiftedInference
from aa_plugins.evaluation.protocol import Protocol
from tests.detectron2.shared import SHAPES, decide

# A network whose forward pass is cheap makes the limit a hard one.
MANY = (
    "MODEL.ANCHOR_GENERATOR.SIZES [[64],[128],[256],[512]] "
    "MODEL.RPN.NMS_THRESH 0.9 MODEL.ROI_HEADS.NMS_THRESH_TEST 0.9 TEST.DETECTIONS_PER_IMAGE 100"
).split()
THREE = Protocol(stride=64, shifts=((1, 0), (3, 3)), controls=False)
IMAGE = (832 + 64, 1088 + 64)  # of which views of 832x1088 are cut
OBJECTS = 20


class Replay(torch.nn.Module):
    """Says of the views, in order, what was found before."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, inputs):
        answer, self.outputs = self.outputs[: len(inputs)], self.outputs[len(inputs) :]
        return answer


@pytest.fixture
def one_thread():
    """Processor time counts every thread, those that wait for another included."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rectangles(count, height, width, size):
    """Masks (count, height, width) of rectangles all over the image, and their boxes."""
    masks, boxes = np.zeros((count, height, width), bool), []
    for number, mask in enumerate(masks):
        top, left = 37 * number % (height - size), 53 * number % (width - size)
        mask[top : top + size, left : left + size] = True
        boxes.append([left, top, left + size, top + size])
    return torch.from_numpy(masks), Boxes(torch.tensor(boxes, dtype=torch.float32))


def ground_truth(count, height, width, size):
    masks, boxes = rectangles(count, height, width, size)
    truth = Instances((height, width), gt_boxes=boxes, gt_masks=BitMasks(masks))
    truth.gt_classes = torch.arange(count) % 7
    truth.gt_crowd = torch.zeros(count, dtype=torch.bool)
    return truth


@pytest.mark.slow
def test_measuring_costs_a_tenth_of_the_forward_passes_at_most(one_thread, tmp_path):
    model = decide(build_model(load_yaml(SHAPES, MANY)))
    image = torch.randint(0, 255, (3, *IMAGE), dtype=torch.uint8)
    row = {"image": image, "instances": ground_truth(OBJECTS, *IMAGE, size=140)}
    evaluator = ShiftConsistencyEvaluator(THREE, 7, tmp_path)
    evaluator.reset()

    plan = THREE.plan(*IMAGE, 0)
    crops = [image[(..., *view.crop.slices)] for view in plan.views]
    assert {crop.shape for crop in crops} == {(3, 832, 1088)}
    forward, own = [], []
    for image_id in range(2):
        outputs = []
        for crop in crops:
            start = time.process_time()
            with torch.no_grad():
                outputs += model([{"image": crop, "height": 832, "width": 1088}])
            forward.append(time.process_time() - start)
        assert {len(output["instances"]) for output in outputs} == {100}
        for repeat in range(2):
            inputs = [{**row, "image_id": 2 * image_id + repeat}]
            wrapper = ShiftedInference(Replay(outputs), THREE)
            start = time.process_time()
            evaluator.process(inputs, wrapper(inputs))
            own.append(time.process_time() - start)
    evaluator.close()
    total = 1 + min(own) / (len(crops) * min(forward))
    print(f"{len(crops)} views cost {total:.3f} times {len(crops)} forward passes")
    assert total < 1.1


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """100 large masks in each of 3 views of an image: 5 MB that must be gone with the image.

    What is held after one image is held after three.
    """
    size = (128 + 64, 128 + 64)
    truth = ground_truth(OBJECTS, *size, size=80)
    evaluator = ShiftConsistencyEvaluator(THREE, 7, tmp_path)
    evaluator.reset()

    def found():
        masks, boxes = rectangles(100, 128, 128, 80)
        instances = Instances((128, 128), pred_boxes=boxes, pred_masks=masks)
        instances.scores, instances.pred_classes = torch.rand(100), torch.arange(100) % 7
        return {"instances": instances}

    def measure(image_ids):
        for image_id in image_ids:
            image = torch.zeros(3, *size, dtype=torch.uint8)
            inputs = [{"image": image, "image_id": image_id, "instances": truth}]
            outputs = ShiftedInference(Replay([found() for _ in range(3)]), THREE)(inputs)
            evaluator.process(inputs, outputs)

    measure(range(1))  # whatever is made once
    tracemalloc.start()
    try:
        held = []
        for image_ids in (range(1, 2), range(2, 4)):
            measure(image_ids)
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    evaluator.close()
    assert abs(held[1] - held[0]) < 30_000, held  # two masks of one of the two images
    lines = (tmp_path / "records.0of1.jsonl").read_text().splitlines()[1:]
    assert len(lines) == 4
    assert max(map(len, lines)) < 30_000  # on disk: counts and scores, no masks
