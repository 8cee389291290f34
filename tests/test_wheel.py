"""What `pip install` brings works without the checkout: from an empty folder, by its command."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NETS = """
import torch
from torchvision.models import get_model


def build():
    torch.manual_seed(0)
    return get_model(
        "lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=8
    )
"""
DATA = """
from aa_plugins.datasets import write_shapes
write_shapes("camvid", "camvid", train=4, val=2, size=(112, 144))
write_shapes("coco/shapes", "coco", train=4, val=2, size=(256, 320))
"""
SEGMENTOR = "mmseg/deeplabv3plus_r18_shapes_adaptive.py"
DETECTOR = "detectron2/Shapes/mask_rcnn_R_18_FPN_adaptive.yaml"
FIVE = ["train_cfg.max_iters=5", "train_cfg.val_interval=5", "train_dataloader.batch_size=2"]
SMALL = (
    "SOLVER.MAX_ITER=5 SOLVER.IMS_PER_BATCH=2 SOLVER.STEPS=(4,) DATALOADER.NUM_WORKERS=0 "
    "MODEL.RPN.POST_NMS_TOPK_TEST=50 INPUT.MIN_SIZE_TEST=192"
).split()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy, so that the checkout is left as it is."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("aa_plugins", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", out, source], check=True)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def shop(wheel, tmp_path_factory) -> Path:
    """An empty folder with data, and beside it an environment with the wheel.

    The environment sees the packages that are installed here, by their folder: what is installed
    in place, as the checkout may be, it doesn't see.
    """
    root = tmp_path_factory.mktemp("shop")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "venv"], check=True)
    packages = next((root / "venv").glob("lib/*/site-packages"))
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", root / "venv/bin/python", "install"]
    quiet = ["--quiet", "--no-deps", "--no-index", "--force-reinstall"]
    subprocess.run([*pip, *quiet, wheel], check=True)
    (root / "empty").mkdir()
    (root / "empty/nets.py").write_text(NETS)
    python(root / "empty", DATA)
    return root / "empty"


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": "1"}


def python(shop: Path, code: str) -> str:
    return _said([shop.parent / "venv/bin/python", "-c", code], shop)


def aa_plugins(shop: Path, command: str, *arguments: object) -> str:
    """What the console script says, which has to end well."""
    script = shop.parent / "venv/bin/aa-plugins"
    return _said([script, *command.split(), *map(str, arguments)], shop)


def _said(command: list, folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def needs(host: str) -> None:
    if find_spec(host) is None:
        pytest.skip(f"{host} isn't installed")


def test_it_is_the_wheel_that_is_imported(shop):
    code = "import aa_plugins; print(aa_plugins.__file__, len(aa_plugins.list_config_files()))"
    path, configs = python(shop, code).split()
    assert Path(path).is_relative_to(shop.parent) and int(configs) > 50


def test_a_network_is_converted(shop):
    code = "import timm; from aa_plugins import antialias\n"
    code += "print(len(antialias(timm.create_model('resnet18')).sites))"
    assert int(python(shop, code)) == 7
    assert "parameters: 11,689,512 + 0" in aa_plugins(
        shop, "inspect timm:resnet18 --aa filter=blur"
    )


def test_mmsegmentation_trains_and_is_measured(shop):
    needs("mmseg")
    aa_plugins(
        shop, f"train --config-file {SEGMENTOR} --data-root camvid --out seg --cfg-options", *FIVE
    )
    said = aa_plugins(
        shop, f"consistency {SEGMENTOR} --weights seg/iter_5.pth --data-root camvid --out seg/out"
    )
    assert "mASSC" in said and (shop / "seg/out/consistency.html").is_file()


def test_detectron2_trains_and_is_measured(shop):
    needs("detectron2")
    said = aa_plugins(
        shop, f"train --config-file {DETECTOR} --data-root coco --out det --cfg-options", *SMALL
    )
    weights = "--weights det/model_final.pth --data-root coco --out det/out"
    said = aa_plugins(shop, f"consistency {DETECTOR} {weights} --cfg-options", *SMALL)
    assert "mAISC" in said


def test_a_classifier_of_timm_is_measured_on_a_folder(shop):
    python(
        shop,
        "import timm, torch; torch.save(timm.create_model('resnet18', num_classes=2)"
        ".state_dict(), 'r18.pth')",
    )
    for index, image in enumerate(sorted((shop / "coco/shapes/val").iterdir())):
        (shop / "photos" / f"{index}_class").mkdir(parents=True)
        shutil.copy(image, shop / "photos" / f"{index}_class")
    networks = "timm:resnet18 timm:aa_resnet18 --weights r18.pth r18.pth --classes 2"
    said = aa_plugins(shop, f"consistency {networks} --data photos --out cls")
    assert "agreement" in said and "aa_resnet18 - resnet18" in said


def test_a_detector_of_torchvision_is_measured(shop):
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    options = "weights=None, weights_backbone=None, num_classes=8"
    python(
        shop,
        "import torch; from torchvision.models import get_model\n"
        f"torch.save(get_model('{name}', {options}).state_dict(), 'tv.pth')",
    )
    data = "--data coco/shapes/val --annotations coco/shapes/instances_val.json"
    said = aa_plugins(shop, f"consistency torchvision:{name} --weights tv.pth {data} --out tv")
    assert "box mAISC" in said


def test_a_segmentor_that_a_function_returns_is_measured(shop):
    said = aa_plugins(
        shop,
        "consistency nets:build --task semantic --data camvid/images/val "
        "--labels camvid/labels/val --out own",
    )
    assert "mASSC" in said
