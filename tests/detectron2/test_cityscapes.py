"""Cityscapes' folders through Detectron2's own loader and Cityscapes' own evaluator."""

import argparse
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin import register_all_cityscapes
from detectron2.modeling import build_model
from detectron2.structures import Instances, polygons_to_bitmask
from PIL import Image, ImageDraw

from aa_plugins.detectron2 import cityscapes
from aa_plugins.detectron2.config import load_yaml
from aa_plugins.detectron2.train import build_evaluator, main
from tests.detectron2.shared import CONFIGS, TINY, scramble

CONFIG = str(CONFIGS / "Cityscapes/mask_rcnn_R_50_FPN_adaptive.yaml")
SMALL = [
    *TINY,
    *"MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64".split(),
    *"MODEL.RESNETS.NORM BN DATALOADER.NUM_WORKERS 0".split(),
]
SIZE = (192, 256)
VAL = "cityscapes_fine_instance_seg_val"
# What an image shows, the later before the earlier; label ids of Cityscapes.
OBJECTS = [
    ("road", 7, (0, 0, 255, 191)),
    ("car", 26, (20, 40, 99, 89)),
    ("person", 24, (60, 30, 79, 99)),
    ("cargroup", 26, (150, 20, 229, 59)),
    ("bicycle", 33, (130, 110, 189, 159)),
]


def write_cityscapes(root, cities=("aachen", "bochum")):
    """A folder as Cityscapes' archives unpack, one image a city; the ids of instances by image."""
    ids = {}
    for split in ("train", "val"):
        for city in cities:
            stem = f"{city}_000000_000019"
            images, truths = (
                root / "cityscapes" / kind / split / city for kind in ("leftImg8bit", "gtFine")
            )
            images.mkdir(parents=True)
            truths.mkdir(parents=True)
            drawn = {kind: Image.new("I", SIZE[::-1]) for kind in ("instanceIds", "labelIds")}
            polygons = []
            for name, label, (x0, y0, x1, y1) in OBJECTS:
                corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
                single = name not in ("road", "cargroup")
                instance = 1000 * label if single else label
                ImageDraw.Draw(drawn["instanceIds"]).polygon(corners, fill=instance)
                ImageDraw.Draw(drawn["labelIds"]).polygon(corners, fill=label)
                polygons.append({"label": name, "polygon": corners})
            ids[f"{stem}_leftImg8bit.png"] = np.array(drawn["instanceIds"])
            Image.fromarray(ids[f"{stem}_leftImg8bit.png"].astype(np.uint16)).save(
                truths / f"{stem}_gtFine_instanceIds.png"
            )
            drawn["labelIds"].convert("L").save(truths / f"{stem}_gtFine_labelIds.png")
            Image.fromarray(
                np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
            ).save(images / f"{stem}_leftImg8bit.png")
            content = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": polygons}
            (truths / f"{stem}_gtFine_polygons.json").write_text(json.dumps(content))
    return ids


@pytest.fixture
def data(tmp_path):
    """The folder, which Detectron2's names of Cityscapes stand for from here on."""
    for package in cityscapes.NEEDED:
        pytest.importorskip(package, reason=f"Cityscapes' tools: pip install {package}")
    ids = write_cityscapes(tmp_path)
    for name in [name for name in DatasetCatalog.list() if name.startswith("cityscapes_fine_")]:
        if "panoptic" not in name:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    register_all_cityscapes(str(tmp_path))
    return ids


def test_instances_are_those_that_cityscapes_draws(data):
    classes = MetadataCatalog.get(VAL).thing_classes
    rows = DatasetCatalog.get(VAL)
    assert sorted(row["image_id"] for row in rows) == sorted(data)
    for row in rows:
        found = {}
        for annotation in row["annotations"]:
            name = classes[annotation["category_id"]], bool(annotation["iscrowd"])
            found[name] = polygons_to_bitmask(annotation["segmentation"], *SIZE)
        ids = data[row["image_id"]]
        names = {("car", False): 26000, ("person", False): 24000, ("bicycle", False): 33000}
        for name, instance in {**names, ("car", True): 26}.items():
            drawn = ids == instance
            mask = found.pop(name)
            # The person cuts the car in two but for a strip that polygons keep.
            assert (mask & drawn).sum() / (mask | drawn).sum() > 0.95, name
        assert not found


def test_cityscapes_own_evaluator_runs(data):
    """Ground truth as predictions has AP 100; with one class lost of three, two thirds."""
    classes = MetadataCatalog.get(VAL).thing_classes
    for lost, expected in ((None, 100), (33, 200 / 3)):
        evaluator = build_evaluator(VAL, "unused")
        evaluator.reset()
        for name, ids in data.items():
            instances = [i for i in np.unique(ids) if i >= 1000 and i // 1000 != lost]
            found = Instances(SIZE, scores=torch.full((len(instances),), 0.9))
            names = {24: "person", 26: "car", 33: "bicycle"}
            found.pred_classes = torch.tensor([classes.index(names[i // 1000]) for i in instances])
            found.pred_masks = torch.from_numpy(np.stack([ids == i for i in instances]))
            evaluator.process([{"file_name": name}], [{"instances": found}])
        assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(expected)


def test_a_config_of_cityscapes_trains_and_is_tested(data, tmp_path):
    options = [*SMALL, "MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "()"]
    options += ["INPUT.MIN_SIZE_TRAIN", "(192,)", "INPUT.MIN_SIZE_TEST", "192"]
    args = argparse.Namespace(
        config_file=CONFIG,
        opts=[*options, "OUTPUT_DIR", str(tmp_path / "out")],
        eval_only=False,
        resume=False,
        weights=None,
    )
    assert main(args)["segm"].keys() == {"AP", "AP50"}


@pytest.mark.slow
def test_the_tool_finds_detectron2s_own_datasets_under_its_data_root(data, tmp_path):
    model = build_model(load_yaml(CONFIG, [*SMALL, "MODEL.WEIGHTS", ""]))
    scramble(model)
    torch.save({"model": model.state_dict()}, tmp_path / "tiny.pth")
    options = [*SMALL, "INPUT.MIN_SIZE_TEST", "192"]
    command = [sys.executable, "tools/eval_consistency.py", "--config-file", CONFIG]
    command += ["--weights", str(tmp_path / "tiny.pth"), "--out", str(tmp_path / "out")]
    command += [
        "--data-root",
        str(tmp_path),
        "--protocol",
        '{"shifts": [[1, 0]], "controls": false}',
    ]
    command += ["--cfg-options", *(f"{k}={v}" for k, v in zip(options[::2], options[1::2]))]
    environment = {**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=CONFIGS.parents[1], env=environment, check=True)
    saved = json.loads((tmp_path / "out/consistency.json").read_text())
    assert saved["results"]["mask_rcnn_R_50_FPN_adaptive"]["counts"]["images"] == 2


def test_what_is_missing_is_named(monkeypatch):
    finder = cityscapes.CityscapesFinder()
    monkeypatch.setattr(cityscapes, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install cityscapesscripts shapely"):
        finder.find_spec("deeplearning")
    assert finder.find_spec("deep") is None and finder.find_spec("json") is None
