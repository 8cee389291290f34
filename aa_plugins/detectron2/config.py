"""Configuration nodes that anti-aliasing adds to Detectron2's, and reading config files."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO

import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aa_plugins.config import AAConfig
from aa_plugins.config_files import get_config_file

OURS = "aa_plugins::"  # before the name of a config that comes with the package, in _BASE_
logger = logging.getLogger(__name__)


def add_aa_config(cfg: CfgNode) -> None:
    """Add the keys below to `cfg`, before files are merged."""
    Node = type(cfg)  # merging takes nodes of one class only
    # The fields of AAConfig in upper case; they take effect in the build_aa_* backbones. The
    # filters of stem and early stages train whatever MODEL.BACKBONE.FREEZE_AT is.
    cfg.MODEL.AA = Node({name.upper(): value for name, value in asdict(AAConfig()).items()})
    # Also filter before the subsampling that makes the FPN's P6 from P5.
    cfg.MODEL.AA.P6 = False

    # What build_aa_timm_backbone builds. MODEL.WEIGHTS may be a checkpoint of timm's own, as
    # "PATH?matching_heuristics=True".
    cfg.MODEL.TIMM = Node()
    cfg.MODEL.TIMM.NAME = "convnext_tiny"
    # Download timm's weights for that name.
    cfg.MODEL.TIMM.PRETRAINED = False
    # The maps at strides 4, 8, 16 and 32; others may have res1 (2) or res6 (64), or lack some.
    cfg.MODEL.TIMM.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # Rate of stochastic depth.
    cfg.MODEL.TIMM.DROP_PATH_RATE = 0.0

    # Of the filters' learning rate, and their weight decay in place of WEIGHT_DECAY.
    cfg.SOLVER.FILTER_LR_FACTOR = 1.0
    cfg.SOLVER.WEIGHT_DECAY_FILTER = None

    # Datasets in COCO's format by path: name: [annotation file, image folder]. Relative paths start
    # at $DETECTRON2_DATASETS (./datasets), as those of Detectron2's own datasets do.
    cfg.DATASETS.COCO_PATHS = Node(new_allowed=True)


def aa_config(cfg: CfgNode) -> AAConfig:
    """The AAConfig that `MODEL.AA` describes.

    Raises:
        ValueError: for a value that no filter has.
    """
    values = {name.lower(): value for name, value in cfg.MODEL.AA.items() if name != "P6"}
    return AAConfig.from_dict(values)


def load_yaml(
    config_file: str, overrides: list[str] | None = None, weights: str | None = None
) -> CfgNode:
    """Detectron2's config with our nodes, a file and `KEY VALUE` overrides; frozen.

    Args:
        weights: overrides MODEL.WEIGHTS.

    Raises:
        ValueError: for a key that doesn't exist, naming the nearest that does, or a wrong value.
    """
    cfg = _Config(get_cfg())
    add_aa_config(cfg)
    known = list(_keys(cfg))
    try:
        cfg.merge_from_file(config_file)
        cfg.merge_from_list(overrides or [])
    except (AssertionError, KeyError, ValueError) as error:
        message = str(error.args[0]) if error.args else repr(error)
        unknown = message.rsplit(": ", 1)[-1]
        nearest = difflib.get_close_matches(unknown, known, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ValueError(f"{config_file}: {message}{hint}") from error
    if weights is not None:
        cfg.MODEL.WEIGHTS = weights
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        logger.warning("No GPU: MODEL.DEVICE is cpu")
        cfg.MODEL.DEVICE = "cpu"
    aa_config(cfg)  # a wrong value is found before any work is done
    cfg.freeze()
    return cfg


def load_lazy(
    config_file: str, overrides: list[str] | None = None, weights: str | None = None
) -> DictConfig:
    """A LazyConfig with `key=value` overrides; `+key=value` adds a key.

    Args:
        weights: overrides train.init_checkpoint.

    Raises:
        ValueError: for a key that doesn't exist, naming the nearest that does.
    """
    cfg = LazyConfig.load(config_file)
    for override in overrides or []:
        if not override.startswith("+"):
            _check_exists(cfg, override.split("=", 1)[0], config_file)
    try:
        cfg = LazyConfig.apply_overrides(cfg, overrides or [])
    except (AssertionError, KeyError, OmegaConfBaseException) as error:
        raise ValueError(f"{config_file}: {str(error).splitlines()[0]}") from error
    if weights is not None:
        cfg.train.init_checkpoint = weights
    if cfg.train.device == "cuda" and not torch.cuda.is_available():
        logger.warning("No GPU: train.device is cpu")
        cfg.train.device = "cpu"
    return cfg


class _Config(CfgNode):
    """Takes "aa_plugins::detectron2/….yaml" for a `_BASE_`.

    Detectron2 puts the folder of the file that inherits before it, and before the bases that the
    base itself names below it.
    """

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[str]:
        folder, ours, name = filename.partition(OURS)
        return super()._open_cfg(get_config_file(os.path.normpath(name)) if ours else folder)


def _check_exists(cfg: DictConfig, key: str, config_file: str) -> None:
    """LazyConfig itself takes any key; those of a callable's arguments the callable checks."""
    parts = key.split(".")
    parent, absent = cfg, object()
    for number in range(1, len(parts) + 1):
        if not OmegaConf.is_config(parent) or "_target_" in parent:
            return
        path = ".".join(parts[:number])
        node = OmegaConf.select(cfg, path, default=absent)
        if node is absent:
            known = map(str, parent) if isinstance(parent, DictConfig) else []
            nearest = difflib.get_close_matches(parts[number - 1], list(known), n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"{config_file}: no key {path} (+{key}=... adds it){hint}")
        parent = node


def _keys(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    for name, value in cfg.items():
        yield prefix + name
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{name}.")
