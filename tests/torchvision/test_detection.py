"""torchvision's Mask R-CNN without any framework: converted, trained, measured."""

import json
import logging
import shutil

import pytest
import torch
from PIL import Image

from aa_plugins.datasets import write_shapes
from aa_plugins.evaluation.instance import summarise
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.layers import filters_of
from aa_plugins.torchvision import CocoImages, build_detector, evaluate, protocol_of, train
from aa_plugins.torchvision.detection import measure

FEW = Protocol(stride=64, shifts=((1, 0),), controls=False)
SMALL = {
    "min_size": 96,
    "max_size": 160,
    "box_detections_per_img": 8,
    "rpn_post_nms_top_n_test": 20,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_shapes(root / "shapes", "coco", train=4, val=2, size=(96, 144))
    return root / "shapes"


@pytest.fixture(scope="module")
def detector(data):
    torch.manual_seed(0)
    dataset = CocoImages(data / "instances_train.json", data / "train")
    return build_detector("maskrcnn_resnet50_fpn", dataset.num_classes, **SMALL), dataset


def test_filters_of_a_detector_train(detector):
    model, dataset = detector
    before = {name: layer.norm.bias.clone() for name, layer in filters_of(model)}
    assert len(before) == 7
    train(model, dataset, iterations=1, batch=1)
    assert all(not torch.equal(layer.norm.bias, before[name]) for name, layer in filters_of(model))


def test_a_detector_is_measured_and_the_run_resumes(detector, data, tmp_path):
    model, _ = detector
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    options = ["annotations=instances_val.json", "images=val", "min_size=96"]
    config = "torchvision:maskrcnn_resnet50_fpn"
    assert protocol_of(config) == {"stride": 64}

    def run(resume=False, weights=tmp_path / "weights.pth", overrides=options):
        return evaluate(config, weights, FEW, tmp_path / "out", data, overrides, resume)

    records = run()
    assert [record["image_id"] for record in records] == [1, 2] and "AP" in records[0]
    assert "mAISC" in summarise(records)["mask"]
    assert run(resume=True) == records
    # Killed after the first image, in the middle of a line.
    path = tmp_path / "out/records.0of1.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:50])
    assert run(resume=True) == records
    with pytest.raises(ValueError, match="unknown option"):
        run(overrides=[*options, "fliter=none"])
    with pytest.raises(FileNotFoundError, match="annotations=FILE"):
        run(overrides=options[:1])


def test_ground_truth_is_that_of_the_file(data):
    dataset = CocoImages(data / "instances_val.json", data / "val")
    image, truth = dataset[0]
    assert image.shape == (3, 96, 144) and 0 <= image.min() < image.max() <= 1
    for mask, box in zip(truth["masks"], truth["boxes"]):
        ys, xs = torch.nonzero(mask, as_tuple=True)
        tight = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert box.tolist() == pytest.approx([float(v) for v in tight], abs=1)


@pytest.fixture
def copy(data, tmp_path):
    """A copy of the data to break: its folder, and its test annotations."""
    folder = shutil.copytree(data, tmp_path / "copy")
    return folder, json.loads((folder / "instances_val.json").read_text())


def opened(folder, annotations):
    path = folder / "instances_val.json"
    path.write_text(annotations if isinstance(annotations, str) else json.dumps(annotations))
    return CocoImages(path, folder / "val")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": [], "annotations": []}'])
def test_an_empty_annotation_file_is_named(copy, text):
    with pytest.raises(ValueError, match="instances_val.json"):
        opened(copy[0], text)


def test_a_category_outside_of_the_dataset_is_named(copy):
    folder, annotations = copy
    annotations["annotations"][0]["category_id"] = 99
    with pytest.raises(ValueError, match="instances_val.json: category_id 99"):
        opened(folder, annotations)


def test_a_truncated_image_is_named(copy):
    folder, annotations = copy
    path = folder / "val" / annotations["images"][1]["file_name"]
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(OSError, match=f"{path.name} can't be read"):
        opened(folder, annotations)[1]


def test_images_of_crowds_alone_and_images_too_small(detector, copy, tmp_path, caplog):
    folder, annotations = copy
    for annotation in annotations["annotations"]:
        annotation["iscrowd"] = 1
    narrow = {**annotations["images"][0], "id": 3, "file_name": "narrow.png"}
    annotations["images"].append({**narrow, "height": 30, "width": 300})
    Image.new("RGB", (300, 30)).save(folder / "val/narrow.png")
    with caplog.at_level(logging.WARNING):
        records = measure(detector[0], opened(folder, annotations), FEW, tmp_path / "out")
    assert [record["image_id"] for record in records] == [1, 2]
    assert summarise(records)["counts"]["images_without_ground_truth"] == 2
    assert "1 of 3 images were left out" in caplog.text and "too small" in caplog.text
    annotations["images"] = annotations["images"][2:]
    annotations["annotations"] = []
    with pytest.raises(ValueError, match="no image was measured.*too small"):
        measure(detector[0], opened(folder, annotations), FEW, tmp_path / "none")
