"""Which host a network comes from; knows none of them, and loads one when it is needed."""

from __future__ import annotations

import ast
import re
from enum import Enum
from importlib import import_module
from pathlib import Path
from types import ModuleType

from aa_plugins.config_files import get_config_file

FORMS = (
    "a config (.py of MMSegmentation, .yaml or LazyConfig of Detectron2), timm:NAME, "
    "torchvision:NAME, an .onnx or .xml file or MODULE:FUNCTION"
)
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Host(Enum):
    """Where networks come from. The value names its room in `aa_plugins`: a host is a folder."""

    MMSEGMENTATION = "mmseg"
    DETECTRON2 = "detectron2"
    TORCHVISION = "torchvision"
    TIMM = "timm"
    EXPORTED = "exported"
    PLAIN = "plain"

    @property
    def title(self) -> str:
        """What the host calls itself."""
        titles = {
            "mmseg": "MMSegmentation",
            "detectron2": "Detectron2",
            "exported": "an exported file",
            "plain": "plain torch",
        }
        return titles.get(self.value, self.value)

    def load(self) -> ModuleType:
        """Its module `host`, which holds what `aa_plugins.hosts.interface` writes down.

        Raises:
            ModuleNotFoundError: where the framework isn't installed.
        """
        return import_module(f"aa_plugins.{self.value}.host")


def host_of(network: str | Path) -> Host:
    """The host of a network as the command line names it.

    "timm:NAME" and "torchvision:NAME" name theirs, "MODULE:FUNCTION" is a function without
    arguments that returns an `nn.Module`. A `.yaml` is Detectron2's, a `.py` one of two, told
    apart by its text: MMSegmentation's name a base (`_base_`, `read_base`) or define a `model`
    dict with a `type`; any other is a LazyConfig.

    Raises:
        FileNotFoundError: where there is no such file, nor a config of that name among ours.
        ValueError: for another kind of file, or one that isn't Python.
    """
    name = str(network)
    for host in (Host.TIMM, Host.TORCHVISION):
        if name.startswith(f"{host.value}:"):
            return host
    if name.endswith((".onnx", ".xml")):
        return Host.EXPORTED
    if FUNCTION.fullmatch(name):
        return Host.PLAIN
    path = config_path(network)
    if path.suffix in (".yaml", ".yml"):
        return Host.DETECTRON2
    if path.suffix != ".py":
        raise ValueError(f"{path} is neither .yaml nor .py: give {FORMS}")
    return Host.MMSEGMENTATION if _is_mmengines(path) else Host.DETECTRON2


def config_path(name: str | Path) -> Path:
    """The path of a config: a file, or the name of one that comes with the package.

    Raises:
        FileNotFoundError: where there is neither.
    """
    return Path(name) if Path(name).is_file() else Path(get_config_file(str(name)))


def _is_mmengines(path: Path) -> bool:
    for node in _parsed(path).body:
        if isinstance(node, ast.With):
            if any(_calls(item.context_expr, "read_base") for item in node.items):
                return True
        if isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if "_base_" in names or ("model" in names and _has_type(node.value)):
                return True
    return False


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        place = f", line {error.lineno}" if getattr(error, "lineno", None) else ""
        message = getattr(error, "msg", error)
        raise ValueError(f"{path}{place} isn't Python ({message}): correct the config") from None


def _calls(value: ast.expr, name: str) -> bool:
    function = getattr(value, "func", None)
    return name in (getattr(function, "id", None), getattr(function, "attr", None))


def _has_type(value: ast.expr) -> bool:
    if _calls(value, "dict"):
        return any(keyword.arg == "type" for keyword in value.keywords)
    if isinstance(value, ast.Dict):
        return any(getattr(key, "value", None) == "type" for key in value.keys)
    return False
