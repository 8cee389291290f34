"""The evaluator inside Detectron2: views, processes, resumption, and images that can't be used."""

import json
import shutil

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from aa_plugins.detectron2 import evaluate as host
from aa_plugins.detectron2.config import load_yaml
from aa_plugins.detectron2.consistency import (
    ShiftConsistencyEvaluator,
    ShiftedInference,
    TruthMapper,
)
from aa_plugins.evaluation.protocol import Protocol, preset
from tests.detectron2.shared import SHAPES, TINY

OVERRIDES = [f"{key}={value}" for key, value in zip(TINY[::2], TINY[1::2])]
OVERRIDES += ["MODEL.AA.FILTER=adaptive"]
FEW = Protocol(stride=32, shifts=((1, 0), (3, 3)), controls=False)


class Square(torch.nn.Module):
    """Finds the brightest square of the image, wherever it lies: perfectly shift-equivariant."""

    def forward(self, inputs):
        outputs = []
        for row in inputs:
            assert row["image"].shape[-2:] == (row["height"], row["width"])
            mask = (row["image"] > 128).all(0)
            found = Instances(mask.shape)
            ys, xs = torch.nonzero(mask, as_tuple=True)
            box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            found.pred_boxes = Boxes(torch.tensor([box], dtype=torch.float32))
            found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([0])
            found.pred_masks = mask[None]
            outputs.append({"instances": found})
        return outputs


def scene(height=128, width=160, image_id=1):
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, 50:70, 60:90] = 255
    return {"image": image, "image_id": image_id, "height": 2 * height, "width": 2 * width}


def measure(evaluator, model, inputs):
    evaluator.reset()
    evaluator.process(inputs, model(inputs))
    return evaluator.evaluate()


def test_an_equivariant_detector_is_perfectly_consistent(tmp_path):
    protocol = Protocol(stride=32)
    evaluator = ShiftConsistencyEvaluator(protocol, 1, tmp_path)
    results = measure(evaluator, ShiftedInference(Square(), protocol), [scene()])
    for kind in ("shift_box", "shift_mask"):
        assert results[kind]["mAISC"] == results[kind]["same_phase"] == 100
        assert results[kind]["lost"] == results[kind]["class_flips"] == 0
    assert "-" not in "".join(key for found in results.values() for key in found)


def test_images_that_are_too_small_are_left_out_and_counted(tmp_path):
    evaluator = ShiftConsistencyEvaluator(FEW, 1, tmp_path)
    model = ShiftedInference(Square(), FEW)
    results = measure(evaluator, model, [scene(), scene(40, 20, image_id=2)])
    assert results["shift_mask"]["mAISC"] == 100
    counts = json.loads((tmp_path / "summary.json").read_text())["counts"]
    assert counts["images"] == counts["skipped_images"] == 1
    with pytest.raises(ValueError, match="no image was measured.*too small"):
        measure(evaluator, model, [scene(40, 20, image_id=2)])


def test_zou_and_zou_worst_presets_run(tmp_path):
    for name in ("zou", "zou-worst"):
        protocol = preset(name, stride=32)
        evaluator = ShiftConsistencyEvaluator(protocol, 1, tmp_path / name)
        results = measure(evaluator, ShiftedInference(Square(), protocol), [scene(160, 160)])
        assert results["shift_mask"]["zou"] == 100


def test_the_wrapper_runs_what_the_model_says_of_each_crop(tiny_weights):
    model = build_model(load_yaml(SHAPES, [*TINY, "MODEL.AA.FILTER", "adaptive"])).eval()
    host.load_detectron2_weights(model, tiny_weights)
    image = torch.randint(0, 255, (3, 100, 132), dtype=torch.uint8)
    row = {"image": image, "image_id": 7, "height": 50, "width": 66}
    with torch.no_grad():
        (output,) = ShiftedInference(model, FEW, view_batch=2)([row])
        views = list(output["views"])
        assert len(views) == len(output["plan"].views) == 3 and len(views[0]["scores"]) > 0
        for view, found in zip(output["plan"].views, views):
            crop = image[(..., *view.crop.slices)]
            expected = model([{"image": crop}])[0]["instances"]
            assert torch.allclose(found["scores"], expected.scores, atol=1e-4)
            assert np.mean(found["masks"] == expected.pred_masks.numpy()) > 0.999


@pytest.mark.slow
def test_two_processes_and_a_resumed_run_measure_what_one_does(datasets, tiny_weights, tmp_path):
    def run(folder, **options):
        return host.evaluate(SHAPES, tiny_weights, FEW, folder, overrides=OVERRIDES, **options)

    one = run(tmp_path / "one")
    assert [record["image_id"] for record in one] == [1, 2, 3, 4] and "AP" in one[0]
    assert any(sum(record["mask"]["a"]) for record in one)
    assert run(tmp_path / "two", processes=2) == one
    assert len(list((tmp_path / "two").glob("records.*of2.jsonl"))) == 2
    # Killed after the second image, in the middle of a line.
    killed = tmp_path / "killed"
    killed.mkdir()
    lines = (tmp_path / "one/records.0of1.jsonl").read_bytes().splitlines(keepends=True)
    (killed / "records.0of1.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:50])
    assert run(killed, resume=True) == one
    with pytest.raises(ValueError, match="identity model"):
        OVERRIDES.append("MODEL.AA.P6=True")
        try:
            run(killed, resume=True)
        finally:
            OVERRIDES.pop()


def test_size_and_filters_of_a_config(datasets, tiny_weights):
    found = host.filters_at_work(SHAPES, tiny_weights, overrides=OVERRIDES, images=2)
    assert len(found) == 7  # the stem's pool, and conv2 and shortcut of three stages
    assert all(0 <= site["spread"] and 0 <= site["departure"] < 1 for site in found.values())
    plain, filtered = (host.size_of(SHAPES, OVERRIDES[:n]) for n in (-1, len(OVERRIDES)))
    assert filtered["parameters"] > plain["parameters"]
    assert filtered["backbone_macs"] > plain["backbone_macs"] > 1e8


def test_crowds_and_empty_images_are_measured(shapes, tiny_weights, tmp_path):
    shutil.copytree(shapes / "shapes", tmp_path / "shapes")
    path = tmp_path / "shapes/instances_val.json"
    annotations = json.loads(path.read_text())
    annotations["annotations"] = [a for a in annotations["annotations"] if a["image_id"] != 2]
    for annotation in annotations["annotations"]:
        annotation["iscrowd"] = int(annotation["image_id"] == 1)
    path.write_text(json.dumps(annotations))
    records = host.evaluate(
        SHAPES, tiny_weights, FEW, tmp_path / "out", data_root=tmp_path, overrides=OVERRIDES
    )
    assert len(records) == 4
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["counts"]["images_without_ground_truth"] == 2


def test_ground_truth_comes_at_the_size_of_the_input(datasets):
    from aa_plugins.detectron2.datasets import register_coco_paths

    cfg = load_yaml(SHAPES, [*TINY, "INPUT.MIN_SIZE_TEST", "192"])
    register_coco_paths(cfg)
    from detectron2.data import get_detection_dataset_dicts

    row = get_detection_dataset_dicts("shapes_val", filter_empty=False)[0]
    row["annotations"][0]["iscrowd"] = 1
    found = TruthMapper.of(DatasetMapper(cfg, is_train=False))(row)
    truth = found["instances"]
    assert found["image"].shape[-2:] == truth.gt_masks.tensor.shape[-2:] == (192, 256)
    assert truth.gt_crowd.tolist() == [True] + [False] * (len(truth) - 1)
    ys, xs = np.nonzero(truth.gt_masks.tensor[1].numpy())
    box = truth.gt_boxes.tensor[1].tolist()
    assert box == pytest.approx([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], abs=2)


def test_the_total_stride_is_that_of_the_coarsest_map_read():
    assert host.protocol_of(SHAPES) == {"stride": 32}
    from tests.detectron2.shared import CONFIGS

    coco = CONFIGS / "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_adaptive.py"
    assert host.protocol_of(coco) == {"stride": 64}


def test_weights_without_filters_are_labelled_as_untrained(datasets, tmp_path):
    plain = build_model(load_yaml(SHAPES, [*TINY, "MODEL.AA.FILTER", "none"]))
    torch.save({"model": plain.state_dict()}, tmp_path / "plain.pth")
    host.evaluate(SHAPES, tmp_path / "plain.pth", FEW, tmp_path / "out", overrides=OVERRIDES)
    header = json.loads((tmp_path / "out/records.0of1.jsonl").read_text().splitlines()[0])
    assert header["header"]["identity"]["untrained_filters"] == 7
