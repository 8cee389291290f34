"""What the README says works as it is written."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from aa_plugins.command import COMMANDS
from aa_plugins.hosts import host_of
from tests.test_rooms import FLOORS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind == "python" and "_base_" not in text]
LINES = [
    line
    for kind, text in BLOCKS
    if kind == "sh"
    for line in text.splitlines()
    if line.startswith("aa-plugins")
]
# Minutes become seconds: iterations and batches of the trainings, at the end of the command.
SHORTER = {
    "mmseg": (
        "--cfg-options train_cfg.max_iters=2 train_cfg.val_interval=2 train_dataloader.batch_size=2"
    ),
    "detectron2": "SOLVER.MAX_ITER 2 SOLVER.IMS_PER_BATCH 2 SOLVER.STEPS (1,)",
}
# The files that the README names, small.
FILES = '''
import json, shutil
from pathlib import Path
import timm, torch
from torchvision.models import get_model
import aa_plugins.timm
from aa_plugins import get_config_file
from aa_plugins.datasets import write_shapes

write_shapes("data/camvid", "camvid", train=4, val=2, size=(192, 256))
write_shapes("data/pennfudan", "coco", train=4, val=2, size=(288, 384))
for split in ("images", "labels"):
    shutil.copytree(f"data/camvid/{split}/val", split)
for path in Path("data/pennfudan").glob("instances_*.json"):
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 1, "name": "person"}]
    for annotation in content["annotations"]:
        annotation["category_id"] = 1
    path.write_text(json.dumps(content))
    if "val" in path.name:
        for image in content["images"]:
            source = Path("data/pennfudan/val", image["file_name"])
            image["file_name"] = f"scene_{image['file_name']}"
            shutil.copy(source, Path("images", image["file_name"]))
        Path("instances.json").write_text(json.dumps(content))
shutil.copytree("data/pennfudan/val", "photos")
torch.save(timm.create_model("resnet18").state_dict(), "plain.pth")
torch.save(timm.create_model("aa_resnet18").state_dict(), "aa.pth")
detector = get_model(
    "fasterrcnn_mobilenet_v3_large_320_fpn", weights=None, weights_backbone=None, num_classes=2
)
torch.save(detector.state_dict(), "detector.pth")
Path("shop").mkdir()
Path("shop/nets.py").write_text("""
from torchvision.models import get_model

def build():
    random = {"weights": None, "weights_backbone": None}
    return get_model("lraspp_mobilenet_v3_large", num_classes=8, **random)
""")

from mmengine.config import Config
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules
import aa_plugins.mmseg
register_all_modules(init_default_scope=True)
for name, variant in (("a", "baseline"), ("b", "blur")):
    config = Config.fromfile(get_config_file(f"mmseg/deeplabv3plus_r18_camvid_{variant}.py"))
    torch.save(MODELS.build(config.model).state_dict(), f"{name}.pth")

from aa_plugins.detectron2.evaluate import build_detector
detector = build_detector(get_config_file("detectron2/PennFudan/mask_rcnn_R_18_FPN_blur.yaml"))
torch.save(detector.state_dict(), "c.pth")
'''


def test_the_picture_of_the_rooms_is_that_of_the_imports():
    (picture,) = [text for kind, text in BLOCKS if not kind and "command" in text]
    lines = [tuple(line.split(" · ")) for line in picture.splitlines()]
    assert [set(line) for line in lines] == [set(floor) for floor in reversed(FLOORS)]


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_one_that_the_parser_takes(line):
    _, name, *arguments = shlex.split(line)
    assert name in COMMANDS
    module, parser = import_module(f"aa_plugins.command.{name}"), argparse.ArgumentParser()
    module.add_arguments(parser)
    args = parser.parse_args(arguments)
    one = getattr(args, "network", None) or getattr(args, "config_file", None)
    networks = getattr(args, "networks", None) or [one]
    assert all(host_of(network) for network in networks)


@pytest.mark.parametrize("text", PYTHON)
def test_a_snippet_is_python_that_imports_what_it_uses(text):
    compile(text, "README.md", "exec")
    names = {"timm.": "import timm", "antialias(": "antialias", "get_cfg(": "get_cfg"}
    for used, imported in names.items():
        assert used not in text or imported in text.split("\n\n")[0]


def test_three_tables_say_what_is_measured():
    assert TEXT.index("## What to use when") < 1500
    table = TEXT[TEXT.index("| you have | use |") :].split("\n\n")[0]
    assert len(table.splitlines()) == 2 + 6


def call(*command, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    for host in ("mmseg", "detectron2"):
        pytest.importorskip(host, reason=f"{host} isn't installed")
    folder = tmp_path_factory.mktemp("readme")
    call("-c", FILES, folder=folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_a_command_runs(folder, line):
    _, name, *arguments = shlex.split(line)
    if name == "train" and "--eval-only" not in arguments:
        config = arguments[arguments.index("--config-file") + 1]
        shorter = shlex.split(SHORTER[config.split("/")[0]])
        if shorter[0] == "--cfg-options" in arguments:
            shorter = shorter[1:]
        arguments += shorter
    if "--out" not in arguments and name != "inspect":
        arguments += ["--out", f"out/{LINES.index(line)}"]
    call("-m", "aa_plugins", name, *arguments, folder=folder)


@pytest.mark.slow
@pytest.mark.parametrize("text", PYTHON)
def test_a_snippet_runs(folder, text):
    call("-c", text, folder=folder)
