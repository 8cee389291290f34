"""The plan of the house: who may import whom."""

import ast
import re
import sys
from pathlib import Path

import pytest

from aa_plugins.hosts import Host

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "aa_plugins"
# From the ground up: a room imports from its own floor and from those below. Rooms of one floor
# may know each other, but never in a circle.
FLOORS = (
    ("config", "config_files", "checkpoints"),
    ("ops", "evaluation"),
    ("layers",),
    ("surgery", "diagnostics", "datasets", "training"),
    ("export", "report"),
    ("hosts",),
    ("robustness",),
    tuple(host.value for host in Host),
    ("command",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
HOSTS = FLOORS[-2]
# What is imported under another name than it is installed by.
INSTALLED = {"cv2": "opencv-python", "PIL": "pillow", "yaml": "pyyaml"}
FRAMEWORKS = {"mmseg", "mmengine", "mmcv", "detectron2", "fvcore"}


def files():
    for path in sorted(PACKAGE.rglob("*.py")):
        if "configs" not in path.parts and path.parent != PACKAGE:
            yield path.relative_to(PACKAGE).parts[0], path
    for path in sorted(PACKAGE.glob("*.py")):
        if path.name not in ("__init__.py", "__main__.py"):
            yield path.stem, path


def imported(path: Path) -> set[str]:
    """Modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def rooms_of(names: set[str]) -> set[str]:
    parts = [name.split(".") for name in names]
    return {p[1] for p in parts if p[0] == "aa_plugins" and len(p) > 1 and p[1] in FLOOR}


def arrows() -> set[tuple[str, str]]:
    pairs = {(room, other) for room, path in files() for other in rooms_of(imported(path))}
    return {(a, b) for a, b in pairs if a != b}


def test_every_room_has_a_floor():
    assert {room for room, _ in files()} == set(FLOOR)


def test_no_arrow_goes_up_and_no_circle():
    upward = {(a, b) for a, b in arrows() if FLOOR[a] < FLOOR[b]}
    assert not upward
    left, waiting = arrows(), set(FLOOR)
    while free := {room for room in waiting if not any(a == room for a, _ in left)}:
        waiting -= free
        left = {(a, b) for a, b in left if b not in free}
    assert not waiting, f"a circle among {sorted(waiting)}"


def test_hosts_do_not_know_one_another():
    """But for timm's networks, which MMSegmentation and Detectron2 take for backbones."""
    between = {(a, b) for a, b in arrows() if a in HOSTS and b in HOSTS}
    assert between <= {("mmseg", "timm"), ("detectron2", "timm")}


@pytest.mark.parametrize("room, path", [*files()], ids=lambda value: getattr(value, "stem", None))
def test_a_room_knows_neither_a_foreign_host_nor_the_checkout(room, path):
    names = {name.split(".")[0] for name in imported(path)}
    if room not in ("mmseg", "detectron2"):
        assert not names & FRAMEWORKS
    assert not names & {"experiments", "benchmark", "timm_sweep", "demo", "tools"}
    assert not re.search(r"__file__\)\.?(resolve\(\))?\.parents\[", path.read_text())
    assert "tools/" not in "".join(strings(path))


def test_what_is_imported_is_declared():
    """But for what hosts bring along, and what torch does."""
    tomllib = pytest.importorskip("tomllib", reason="Python is older than 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[\w-]+", text)[0] for text in project["dependencies"]}
    extras = project["optional-dependencies"]
    declared |= {re.match(r"[\w-]+", text)[0] for text in extras["export"]}
    optional = {"imagecorruptions", "omegaconf", "iopath", "pkg_resources", "triton", "safetensors"}
    found = {
        name.split(".")[0]
        for room, path in files()
        for name in imported(path)
        if room not in ("mmseg", "detectron2")
    }
    found -= {*sys.stdlib_module_names, "aa_plugins", "__future__", *optional}
    assert {INSTALLED.get(name, name) for name in found} <= declared


def strings(path: Path) -> list[str]:
    """Text of a file outside of its docstrings."""
    tree = ast.parse(path.read_text())
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [n.value for n in constants if isinstance(n.value, str) and id(n) not in documents]
