"""Which host framework a config file belongs to; knows none of them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DETECTRON2_YAML = "Detectron2 (yaml)"
DETECTRON2_LAZY = "Detectron2 (LazyConfig)"
MMSEGMENTATION = "MMSegmentation"
TORCHVISION = "torchvision"

# Options of the training command that not every host takes.
TAKEN_BY = {
    "work_dir": (MMSEGMENTATION,),
    "data_root": (MMSEGMENTATION,),
    "amp": (MMSEGMENTATION,),
    "cfg_options": (MMSEGMENTATION,),
    "launcher": (MMSEGMENTATION,),
    "num_machines": (DETECTRON2_YAML, DETECTRON2_LAZY),
    "machine_rank": (DETECTRON2_YAML, DETECTRON2_LAZY),
    "dist_url": (DETECTRON2_YAML, DETECTRON2_LAZY),
    "opts": (DETECTRON2_YAML, DETECTRON2_LAZY),
}
INSTEAD = {
    ("data_root", DETECTRON2_YAML): "set DETECTRON2_DATASETS to the folder",
    ("data_root", DETECTRON2_LAZY): "set DETECTRON2_DATASETS to the folder",
    ("work_dir", DETECTRON2_YAML): "give OUTPUT_DIR DIR",
    ("work_dir", DETECTRON2_LAZY): "give train.output_dir=DIR",
    ("amp", DETECTRON2_YAML): "give SOLVER.AMP.ENABLED True",
    ("amp", DETECTRON2_LAZY): "give train.amp.enabled=True",
    ("cfg_options", DETECTRON2_YAML): "give KEY VALUE pairs at the end",
    ("cfg_options", DETECTRON2_LAZY): "give key=value at the end",
    ("opts", MMSEGMENTATION): "give --cfg-options KEY=VALUE",
}


def refuse_foreign_options(host: str, options: Mapping[str, Any]) -> None:
    """Refuse what a host doesn't take: ignored, an option would train another network.

    Args:
        options: of the training command, by name; those that differ from their default.

    Raises:
        ValueError: naming the option, and what this host takes instead.
    """
    for name, hosts in TAKEN_BY.items():
        if name in options and host not in hosts:
            given = " ".join(options[name]) if name == "opts" else f"--{name.replace('_', '-')}"
            instead = INSTEAD.get((name, host), "leave it out")
            raise ValueError(f"{given}: {host} doesn't take this, {instead}")


def host_of(config_file: str | Path) -> str:
    """The host of a config: `.yaml` is Detectron2's, `.py` one of two, told apart by its text.

    MMSegmentation's name bases in `_base_` or under `with read_base():`, or define a `model` dict
    with a `type`; any other Python file is a LazyConfig. "torchvision:NAME", no file, is a detector
    of torchvision.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for another kind of file, or one that isn't Python.
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
    for node in _parsed(path).body:
        if isinstance(node, ast.With) and any(map(_reads_base, node.items)):
            return MMSEGMENTATION
        if isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if "_base_" in names or ("model" in names and _has_type(node.value)):
                return MMSEGMENTATION
    return DETECTRON2_LAZY


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        place = f", line {error.lineno}" if getattr(error, "lineno", None) else ""
        message = getattr(error, "msg", error)
        raise ValueError(f"{path}{place} isn't Python ({message}): correct the config") from None


def _reads_base(item: ast.withitem) -> bool:
    function = getattr(item.context_expr, "func", None)
    return "read_base" in (getattr(function, "id", None), getattr(function, "attr", None))


def _has_type(value: ast.expr) -> bool:
    if isinstance(value, ast.Call) and getattr(value.func, "id", None) == "dict":
        return any(keyword.arg == "type" for keyword in value.keywords)
    if isinstance(value, ast.Dict):
        return any(getattr(key, "value", None) == "type" for key in value.keys)
    return False
