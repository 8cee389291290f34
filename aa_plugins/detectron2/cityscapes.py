"""Cityscapes in Detectron2, whose loader and evaluator look for Cityscapes' scripts in vain.

Detectron2's later commits import them as `deeplearning.projects.cityscapesApi.cityscapesscripts`,
which no public package provides. Importing this file has that name find the public package, if
nothing else provides it: data and evaluation stay Detectron2's and Cityscapes' own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
from detectron2.evaluation import CityscapesInstanceEvaluator

API = "deeplearning.projects.cityscapesApi"
SCRIPT = "evalInstanceLevelSemanticLabeling"
NEEDED = ("cityscapesscripts", "shapely")


class CityscapesFinder(MetaPathFinder):
    """Finds the package that Detectron2 asks for, as an alias of `cityscapesscripts`.

    Raises:
        ModuleNotFoundError: on that import, where the public packages aren't installed.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != API and not API.startswith(f"{fullname}."):
            return None
        missing = [name for name in NEEDED if find_spec(name) is None]
        if missing:
            raise ModuleNotFoundError(
                f"Cityscapes needs {' and '.join(missing)}: pip install {' '.join(missing)}"
            )
        spec = ModuleSpec(fullname, loader=None, is_package=True)
        if fullname == API:
            spec.submodule_search_locations = [str(Path(find_spec(NEEDED[0]).origin).parents[1])]
        return spec


class CityscapesEvaluator(CityscapesInstanceEvaluator):
    """Detectron2's evaluator, which Cityscapes' scripts of 2.3.0 break under NumPy 2.4."""

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        scripts = import_module(f"{API}.cityscapesscripts.evaluation.{SCRIPT}")
        # It would save a matches.json in the current folder, and can't encode NumPy's integers.
        scripts.writeDict2JSON = lambda content, path: None
        if not hasattr(np, "in1d"):
            np.in1d = lambda values, known: np.isin(values, known).ravel()
        return super().evaluate()


if not any(isinstance(finder, CityscapesFinder) for finder in sys.meta_path):
    sys.meta_path.append(CityscapesFinder())
