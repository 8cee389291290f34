"""Datasets by path, and what can be wrong with one."""

import json
import shutil

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog

from aa_plugins.detectron2 import coco_dataset
from aa_plugins.detectron2.config import load_yaml
from aa_plugins.detectron2.datasets import register_coco, register_coco_paths
from aa_plugins.detectron2.train import Trainer
from tests.detectron2.shared import SHAPES


@pytest.fixture
def copy(shapes, tmp_path, monkeypatch):
    """A copy of the shapes to break, and its annotations."""
    shutil.copytree(shapes / "shapes", tmp_path / "shapes")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    path = tmp_path / "shapes/instances_val.json"
    return path, json.loads(path.read_text())


def load(name="broken_val"):
    return coco_dataset(name, "shapes/instances_val.json", "shapes/val", filter_empty=False)


def test_a_config_registers_its_datasets_by_path(datasets):
    cfg = load_yaml(SHAPES)
    register_coco_paths(cfg)
    register_coco_paths(cfg)
    assert len(DatasetCatalog.get("shapes_val")) == 4
    assert MetadataCatalog.get("shapes_val").evaluator_type == "coco"
    assert len(MetadataCatalog.get("shapes_val").thing_classes) == 7


def test_missing_files_are_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="DETECTRON2_DATASETS"):
        register_coco_paths(load_yaml(SHAPES))


def test_a_name_of_detectron2s_own_is_refused(datasets):
    with pytest.raises(ValueError, match="exists already"):
        register_coco("coco_2017_val", "shapes/instances_val.json", "shapes/val")


def test_a_category_outside_of_the_dataset_is_named(copy):
    path, annotations = copy
    annotations["annotations"][3]["category_id"] = 99
    path.write_text(json.dumps(annotations))
    with pytest.raises(ValueError, match="instances_val.json.*99"):
        load()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": [], "annotations": []}'])
def test_an_empty_annotation_file_is_named(copy, text):
    path, _ = copy
    path.write_text(text)
    with pytest.raises(ValueError, match="instances_val.json"):
        load()


def test_a_truncated_image_is_named(copy):
    path, _ = copy
    cfg = load_yaml(SHAPES)
    register_coco_paths(cfg)
    image = path.parent / "val/000002.png"
    image.write_bytes(image.read_bytes()[:3000])
    with pytest.raises(OSError, match="000002.png can't be read"):
        list(Trainer.build_test_loader(cfg, "shapes_val"))


def test_images_of_crowds_alone_are_left_out_of_training_and_kept_for_the_test(copy):
    path, annotations = copy
    for annotation in annotations["annotations"]:
        annotation["iscrowd"] = int(annotation["image_id"] == 1)
    path.write_text(json.dumps(annotations))
    assert len(load()) == 4
    assert len(coco_dataset("broken_val", "shapes/instances_val.json", "shapes/val")) == 3
