"""The COCO recipe runs as it is, but for a thin network and one iteration, on COCO's own layout."""

import json
import os
import subprocess
import sys

import cv2
import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from pycocotools import mask as rle

from aa_plugins.datasets import write_shapes
from tests.detectron2.shared import CONFIGS, TINY

THIN = [*TINY, *"MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64".split()]
THIN += "MODEL.RESNETS.NORM BN MODEL.WEIGHTS '' SOLVER.MAX_ITER 1 DATALOADER.NUM_WORKERS 0".split()


def outlines(segmentation):
    """Polygons of a mask, as COCO's annotators draw them."""
    mask = rle.decode(segmentation)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour.ravel().tolist() for contour in contours if len(contour) >= 3]


def write_coco(root):
    """annotations/instances_*2017.json and *2017/, with COCO's categories."""
    write_shapes(root / "coco", "coco", train=4, val=2, size=(96, 128))
    things = [{"id": c["id"], "name": c["name"]} for c in COCO_CATEGORIES if c["isthing"]]
    (root / "coco/annotations").mkdir()
    for split in ("train", "val"):
        (root / "coco" / split).rename(root / f"coco/{split}2017")
        content = json.loads((root / f"coco/instances_{split}.json").read_text())
        content["categories"] = things
        for row in content["annotations"]:
            row["category_id"] = things[row["category_id"]]["id"]
            row["segmentation"] = outlines(row["segmentation"])
        content["annotations"] = [row for row in content["annotations"] if row["segmentation"]]
        path = root / f"coco/annotations/instances_{split}2017.json"
        path.write_text(json.dumps(content))


@pytest.mark.slow
def test_the_coco_recipe_trains_and_tests(tmp_path):
    write_coco(tmp_path)
    config = CONFIGS / "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x_adaptive.yaml"
    root = CONFIGS.parents[1]
    command = [sys.executable, str(root / "tools/train_net.py"), "--config-file", str(config)]
    command += [*THIN, "OUTPUT_DIR", str(tmp_path / "out")]
    environment = {**os.environ, "DETECTRON2_DATASETS": str(tmp_path), "PYTHONPATH": str(root)}
    subprocess.run(command, cwd=root, env=environment, check=True)
    lines = (tmp_path / "out/metrics.json").read_text().splitlines()
    found = {name for line in lines for name in json.loads(line)}
    assert {"total_loss", "bbox/AP", "segm/AP"} <= found
    assert (tmp_path / "out/model_final.pth").is_file()
