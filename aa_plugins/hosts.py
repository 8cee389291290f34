"""Which host framework a config file belongs to; knows none of them."""

from __future__ import annotations

import ast
from pathlib import Path

DETECTRON2_YAML = "Detectron2 (yaml)"
DETECTRON2_LAZY = "Detectron2 (LazyConfig)"
MMSEGMENTATION = "MMSegmentation"
TORCHVISION = "torchvision"


def host_of(config_file: str | Path) -> str:
    """The host of a config: `.yaml` is Detectron2's, `.py` one of two, told apart by its text.

    MMSegmentation's name a base in `_base_` or define a `model` dict with a `type`; any other
    Python file is a LazyConfig. "torchvision:NAME", no file, is a detector of torchvision.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for another kind of file.
    """
    if str(config_file).startswith("torchvision:"):
        return TORCHVISION
    path = Path(config_file)
    if not path.is_file():
        raise FileNotFoundError(f"no config file {path}: see configs/ for those that come with us")
    if path.suffix in (".yaml", ".yml"):
        return DETECTRON2_YAML
    if path.suffix != ".py":
        raise ValueError(f"{path} is neither .yaml nor .py: give a config of one of the hosts")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if "_base_" in names or ("model" in names and _has_type(node.value)):
                return MMSEGMENTATION
    return DETECTRON2_LAZY


def _has_type(value: ast.expr) -> bool:
    if isinstance(value, ast.Call) and getattr(value.func, "id", None) == "dict":
        return any(keyword.arg == "type" for keyword in value.keywords)
    if isinstance(value, ast.Dict):
        return any(getattr(key, "value", None) == "type" for key in value.keys)
    return False
