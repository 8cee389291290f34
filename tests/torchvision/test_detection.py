"""torchvision's Mask R-CNN without any framework: converted, trained, measured."""

import json
import logging
import shutil

import pytest
import torch
from PIL import Image

from aa_plugins.datasets import write_shapes
from aa_plugins.evaluation.instance import INSTANCE
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.layers import filters_of
from aa_plugins.torchvision import CocoImages, build_detector, evaluate, protocol_of, train
from aa_plugins.torchvision.detection import check, measure

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


@pytest.mark.slow
def test_a_detector_is_measured_and_the_run_resumes(detector, data, tmp_path):
    model, _ = detector
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    options = ["annotations=instances_val.json", "images=val", "min_size=96", "filter=adaptive"]
    config = "torchvision:maskrcnn_resnet50_fpn"
    assert protocol_of(config) == {"stride": 64}

    def run(resume=False, weights=tmp_path / "weights.pth", overrides=options):
        return evaluate(config, weights, FEW, tmp_path / "out", data, overrides, resume)

    records = run()
    assert [record["image_id"] for record in records] == [1, 2] and "AP" in records[0]
    assert "mAISC" in INSTANCE.summarise(records)["mask"]
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


def test_two_images_with_one_id_are_an_error(copy):
    folder, annotations = copy
    annotations["images"].append({**annotations["images"][0], "file_name": "other.png"})
    with pytest.raises(ValueError, match="instances_val.json has 2 images with the id 1"):
        opened(folder, annotations)


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


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("maskrcnn_resnet50_fpn", 64),
        pytest.param("fasterrcnn_mobilenet_v3_large_320_fpn", 64, marks=pytest.mark.slow),
        pytest.param("keypointrcnn_resnet50_fpn", 64, marks=pytest.mark.slow),
        ("retinanet_resnet50_fpn", 128),
        pytest.param("fcos_resnet50_fpn", 128, marks=pytest.mark.slow),
        pytest.param("ssd300_vgg16", 64, marks=pytest.mark.slow),
        ("ssdlite320_mobilenet_v3_large", 512),
    ],
)
def test_the_stride_is_measured_on_the_network(name, stride):
    # SSDLite's last map is the sixth of a power of two from 16: one pixel of 320, 32 of 16384.
    assert protocol_of(f"torchvision:{name}") == {"stride": stride}
    assert protocol_of(f"torchvision:{name}", ["filter=none"]) == {"stride": stride}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("retinanet_resnet50_fpn", marks=pytest.mark.slow),
        pytest.param("fcos_resnet50_fpn", marks=pytest.mark.slow),
        "ssdlite320_mobilenet_v3_large",
    ],
)
def test_detectors_without_masks_are_measured_at_the_size_of_the_view(name, data, tmp_path):
    model = build_detector(name, 8, {"filter": "blur"}, score_thresh=0.0, detections_per_img=5)
    sizes = set()
    model.backbone.register_forward_pre_hook(lambda _, x: sizes.add(tuple(x[0].shape[-2:])))
    dataset = CocoImages(data / "instances_val.json", data / "val")
    protocol = Protocol(stride=64, shifts=((1, 0),), controls=False, crop=(192, 192))
    records = measure(model, dataset, protocol, tmp_path)
    assert len(records) == 2 and "box" in records[0] and "mask" not in records[0]
    assert sizes == {(192, 192)}


def state_of(name="fasterrcnn_mobilenet_v3_large_320_fpn", **fields):
    torch.manual_seed(0)
    return build_detector(name, 8, fields).state_dict()


FASTER = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"
VAL = ["annotations=instances_val.json", "images=val"]


@pytest.mark.parametrize(
    ("weights", "overrides", "untrained", "message"),
    [
        ("none", [], 0, "holds no filter: the detector is plain"),
        ("none", ["filter=adaptive"], 4, "keep their start"),
        ("adaptive", [], 0, "holds filters: filter=adaptive"),
    ],
)
def test_what_is_measured_is_what_the_weights_are(
    weights, overrides, untrained, message, data, tmp_path, caplog
):
    torch.save(state_of(filter=weights), tmp_path / "weights.pth")
    protocol = Protocol(stride=64, shifts=((1, 0),), controls=False)
    records = evaluate(
        FASTER, tmp_path / "weights.pth", protocol, tmp_path, data, [*VAL, *overrides]
    )
    assert len(records) == 2 and message in caplog.text
    header = json.loads((tmp_path / "records.0of1.jsonl").read_text().splitlines()[0])["header"]
    assert bool(header["identity"]["untrained_filters"]) == bool(untrained)


def test_a_protocol_of_another_stride_is_told_so(data, tmp_path, caplog):
    torch.save(state_of(filter="none"), tmp_path / "weights.pth")
    protocol = Protocol(stride=32, shifts=((1, 0),), controls=False)
    evaluate(FASTER, tmp_path / "weights.pth", protocol, tmp_path, data, VAL)
    assert "the protocol's stride is 32, but the network's total stride is 64" in caplog.text


def test_a_head_that_is_not_finite_names_the_image(data, tmp_path):
    model = build_detector(FASTER.removeprefix("torchvision:"), 8, {"filter": "none"})
    with torch.no_grad():
        model.rpn.head.cls_logits.weight.fill_(torch.inf)
    dataset = CocoImages(data / "instances_val.json", data / "val")
    protocol = Protocol(stride=64, shifts=((1, 0),), controls=False)
    with pytest.raises(ValueError, match=r"image .*\.png: rpn.head.cls_logits gives values that"):
        measure(model, dataset, protocol, tmp_path)


def rotated(path):
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:3000])


@pytest.mark.parametrize(
    ("spoil", "reason"), [(rotated, "96x144"), (cut_off, "can't be read"), (None, "too small")]
)
def test_one_bad_image_is_left_out_named_and_counted(spoil, reason, copy, tmp_path, caplog):
    folder, annotations = copy
    row = annotations["images"][0]
    path = folder / "val" / row["file_name"]
    if spoil:
        spoil(path)
    else:
        Image.new("RGB", (300, 30)).save(path)
        row.update(height=30, width=300)
        annotations["annotations"] = [a for a in annotations["annotations"] if a["image_id"] == 2]
    model = build_detector(FASTER.removeprefix("torchvision:"), 8, {"filter": "none"})
    protocol = Protocol(stride=64, shifts=((1, 0),), controls=False, crop=(64, 64))
    records = measure(model, opened(folder, annotations), protocol, tmp_path / "out")
    assert [record["image_id"] for record in records] == [2]
    assert "left out: image 1: " in caplog.text and reason in caplog.text
    assert spoil is None or path.name in caplog.text
    assert "1 of 2 images were left out" in caplog.text


def test_images_without_annotations_or_of_boxes_alone_are_measured(copy, tmp_path):
    folder, annotations = copy
    model = build_detector(FASTER.removeprefix("torchvision:"), 8, {"filter": "none"})
    protocol = Protocol(stride=64, shifts=((1, 0),), controls=False)
    for annotation in annotations["annotations"]:
        annotation.pop("segmentation")
    records = measure(model, opened(folder, annotations), protocol, tmp_path / "boxes")
    assert all(set(record["AP"]) == {"box"} for record in records)
    annotations.pop("annotations")
    records = measure(model, opened(folder, annotations), protocol, tmp_path / "none")
    assert len(records) == 2 and not any("AP" in record for record in records)


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("torchvision:maskrcnn_resnet50_fpm", [], "did you mean maskrcnn_resnet50_fpn"),
        ("torchvision:resnet50", [], "no detector 'resnet50'"),
        (FASTER, ["min_size=0"], "min_size=0"),
        (FASTER, ["filter=gauss"], "choose one of adaptive"),
        (FASTER, ["groups=two"], "groups='two'"),
        (FASTER, ["annotation=x"], "unknown option 'annotation=x'"),
        ("torchvision:ssd300_vgg16", ["min_size=96", "filter=none"], "ssd300_vgg16 doesn't take"),
        ("torchvision:ssd300_vgg16", ["filter=none"], "another architecture"),
    ],
)
def test_wrong_inputs_are_named_in_a_line(config, overrides, message, data, tmp_path):
    torch.save(state_of(filter="none"), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=message) as error:
        check(config, tmp_path / "weights.pth", data, [*VAL, *overrides])
    assert "\n" not in str(error.value)


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
    assert INSTANCE.summarise(records)["counts"]["images_without_ground_truth"] == 2
    assert "1 of 3 images were left out" in caplog.text and "too small" in caplog.text
    annotations["images"] = annotations["images"][2:]
    annotations["annotations"] = []
    with pytest.raises(ValueError, match="no image was measured.*too small"):
        measure(detector[0], opened(folder, annotations), FEW, tmp_path / "none")
