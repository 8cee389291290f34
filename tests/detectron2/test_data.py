"""Which images are measured: ids of several data sets, resumption, and one bad image."""

import json
import shutil

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import torch
from PIL import Image

from aa_plugins.detectron2 import evaluate as host
from aa_plugins.detectron2.datasets import use_data_root
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import read_records
from tests.detectron2.shared import LAZY, SHAPES, TINY

FEW = Protocol(stride=32, shifts=((1, 0),), controls=False)
OVERRIDES = [f"{key}={value}" for key, value in zip(TINY[::2], TINY[1::2])]
OVERRIDES += ["MODEL.AA.FILTER=adaptive"]


@pytest.fixture
def copy(shapes, tmp_path):
    """The test annotations of two images of a copy of the shapes to break, and their path."""
    path = shutil.copytree(shapes / "shapes", tmp_path / "data/shapes") / "instances_val.json"
    content = json.loads(path.read_text())
    content["images"] = content["images"][:2]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] <= 2]
    path.write_text(json.dumps(content))
    return path, content


BOTH = f"""
_BASE_: "{SHAPES}"
DATASETS:
  COCO_PATHS:
    shapes_a: ["shapes/instances_val.json", "shapes/val"]
    shapes_b: ["shapes/instances_val.json", "shapes/val"]
  TEST: ("shapes_a", "shapes_b")
"""


def test_two_test_sets_with_the_same_ids_are_measured_whole(copy, tiny_weights, tmp_path):
    config = tmp_path / "both.yaml"
    config.write_text(BOTH)
    records = evaluate(copy[0], tiny_weights, tmp_path / "out", *OVERRIDES, config=config)
    expected = ["shapes_a/1", "shapes_a/2", "shapes_b/1", "shapes_b/2"]
    assert [record["image_id"] for record in records] == expected


TWO = (
    LAZY
    + """
from detectron2.data import get_detection_dataset_dicts

from aa_plugins.detectron2.datasets import register_coco

for _name in ("val", "train"):
    register_coco(f"two_{_name}", f"shapes/instances_{_name}.json", f"shapes/{_name}")
dataloader.test.dataset = L(get_detection_dataset_dicts)(
    names=["two_val", "two_train"], filter_empty=False
)
"""
)


def test_a_lazy_config_of_two_test_sets_too(datasets, tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    task = host._task(*host._load(tmp_path / "two.py", ["train.device=cpu"]))
    ids = [row["image_id"] for row in task.dataset]
    assert len(set(ids)) == len(ids) == 10 and ids[0] == "two_val/1"


def test_an_id_twice_in_one_set_is_an_error(copy, tiny_weights, tmp_path):
    path, content = copy
    content["images"].append({**content["images"][0]})
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="instances_val.json.* 2 images with the id 1"):
        evaluate(path, tiny_weights, tmp_path / "out")


def evaluate(path, weights, out, *overrides, resume=False, config=SHAPES):
    options = [*OVERRIDES, *overrides] if config == SHAPES else list(overrides)
    root = path.parents[1]
    return host.evaluate(config, weights, FEW, out, root, options, resume=resume)


def reannotated(path, content):
    content["annotations"][0]["bbox"][2] += 3
    path.write_text(json.dumps(content))


def repainted(path, content):
    Image.new("RGB", (128, 96)).save(path.parent / "val" / content["images"][0]["file_name"])


@pytest.mark.parametrize(
    ("change", "overrides", "section"),
    [
        (reannotated, [], "data"),
        (repainted, [], "data"),
        (None, ["INPUT.MIN_SIZE_TEST=128"], "pipeline"),
        (None, ["TEST.DETECTIONS_PER_IMAGE=5"], "pipeline"),
    ],
)
def test_a_run_isnt_resumed_on_other_data_or_with_another_pipeline(
    change, overrides, section, copy, tiny_weights, tmp_path
):
    path, content = copy
    evaluate(path, tiny_weights, tmp_path / "out")
    if change:
        change(path, content)
    with pytest.raises(ValueError, match=f"identity {section}"):
        evaluate(path, tiny_weights, tmp_path / "out", *overrides, resume=True)


def test_a_lazy_run_isnt_resumed_on_other_data_or_with_another_pipeline(copy, tmp_path):
    from detectron2.config import instantiate

    from aa_plugins.detectron2.config import load_lazy

    path, content = copy
    use_data_root(path.parents[1])
    config = tmp_path / "lazy.py"
    config.write_text(LAZY)
    torch.save(
        {"model": instantiate(load_lazy(str(config)).model).state_dict()}, tmp_path / "w.pth"
    )
    weights, out = tmp_path / "w.pth", tmp_path / "out"
    protocol = Protocol(stride=64, shifts=((1, 0),), controls=False, crop=(64, 64))

    def run(*overrides, resume=False):
        options = ["train.device=cpu", *overrides]
        return host.evaluate(config, weights, protocol, out, path.parents[1], options, resume)

    records = run()
    assert run(resume=True) == records and len(records) == 2
    size = "dataloader.test.mapper.augmentations.0.short_edge_length=[128,128]"
    with pytest.raises(ValueError, match="identity pipeline"):
        run(size, resume=True)
    reannotated(path, content)
    with pytest.raises(ValueError, match="identity data"):
        run(resume=True)


def rotated(image, row):
    opened = Image.open(image)
    exif = opened.getexif()
    exif[0x0112] = 6
    opened.save(image, exif=exif)


def cut_off(image, row):
    image.write_bytes(image.read_bytes()[:3000])


def missing(image, row):
    image.unlink()


def tiny(image, row):
    Image.new("RGB", (400, 10)).save(image)
    row.update(width=400, height=10)


@pytest.mark.parametrize("spoil", [rotated, cut_off, missing, tiny])
def test_one_bad_image_is_left_out_named_and_counted(spoil, copy, tiny_weights, tmp_path):
    path, content = copy
    row = content["images"][1]
    spoil(path.parent / "val" / row["file_name"], row)
    if spoil is tiny:
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != row["id"]]
    path.write_text(json.dumps(content))
    records = evaluate(path, tiny_weights, tmp_path / "out")
    assert [record["image_id"] for record in records] == [1]
    header = read_records(tmp_path / "out")[0]
    assert list(header["left_out"]) == [2] and row["file_name"] in header["left_out"][2]
    assert "\n" not in header["left_out"][2]
    counts = json.loads((tmp_path / "out/summary.json").read_text())["counts"]
    assert counts["skipped_images"] == 1 and counts["images"] == 1
    assert f"left out: image 2: {header['left_out'][2]}" in (tmp_path / "out/log.txt").read_text()


def test_boxes_alone_and_no_labels_at_all_are_measured(copy, tiny_weights, tmp_path):
    path, content = copy
    for annotation in content["annotations"]:
        annotation.pop("segmentation")
    path.write_text(json.dumps(content))
    records = evaluate(path, tiny_weights, tmp_path / "boxes")
    assert len(records) == 2 and all(set(record["AP"]) == {"box"} for record in records)
    content.pop("annotations")
    path.write_text(json.dumps(content))
    records = evaluate(path, tiny_weights, tmp_path / "none")
    assert len(records) == 2 and any(sum(record["mask"]["a"]) for record in records)


def test_the_data_root_moves_detectron2s_own_data_sets_too(tmp_path):
    from detectron2.data import MetadataCatalog
    from detectron2.data.datasets import builtin

    before = builtin._root
    try:
        use_data_root(tmp_path)
        metadata = MetadataCatalog.get("coco_2017_val")
        assert metadata.json_file == f"{tmp_path}/coco/annotations/instances_val2017.json"
        assert len(metadata.thing_classes) == 80
        assert MetadataCatalog.get("cityscapes_fine_sem_seg_val").image_dir.startswith(
            str(tmp_path)
        )
        use_data_root(tmp_path)
    finally:
        if not (tmp_path / before).is_dir():
            builtin._root = before


def test_the_stride_told_is_the_networks(copy, tiny_weights, tmp_path):
    out = tmp_path / "out"
    protocol = Protocol(stride=16, shifts=((1, 0),), controls=False)
    host.evaluate(SHAPES, tiny_weights, protocol, out, copy[0].parents[1], OVERRIDES)
    log = (out / "log.txt").read_text()
    assert "the protocol's stride is 16, but the network's total stride is 32" in log
    assert log.count("Anti-aliasing: 7 adaptive filters") == 2  # in the first lines and the last
