"""torchvision's Mask R-CNN without any framework: converted, trained, measured."""

import pytest
import torch

from aa_plugins.datasets import write_shapes
from aa_plugins.evaluation.instance import summarise
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.layers import filters_of
from aa_plugins.torchvision import CocoImages, build_detector, evaluate, protocol_of, train

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
