"""The configs that come with the package, by the names that they have below `configs/`."""

from __future__ import annotations

import difflib
from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"
HOSTS = ("mmseg", "detectron2")


def list_config_files() -> list[str]:
    """Names of all configs to train with, as "mmseg/deeplabv3plus_r18_camvid_adaptive.py"."""
    found = (path for host in HOSTS for path in sorted((CONFIGS / host).rglob("*")))
    names = (path.relative_to(CONFIGS) for path in found if path.suffix in (".py", ".yaml"))
    return [str(name) for name in names if not _is_base(name)]


def get_config_file(name: str) -> str:
    """The path of a config by its name, with or without the leading "configs/".

    Bases are found, too, so that a config elsewhere can inherit from one.

    Raises:
        FileNotFoundError: where there is none of that name, naming the nearest.
    """
    path = CONFIGS / name.removeprefix("configs/")
    if not path.is_file():
        nearest = difflib.get_close_matches(name, list_config_files(), n=1, cutoff=0)
        raise FileNotFoundError(
            f"no config file {name}, nor does one of that name come with aa_plugins; the nearest "
            f"name is {nearest[0]}, aa_plugins.list_config_files() lists all"
        )
    return str(path)


def _is_base(name: Path) -> bool:
    return "_base_" in name.parts or name.stem.startswith("Base-")
