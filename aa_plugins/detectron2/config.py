"""Configuration nodes that anti-aliasing adds to Detectron2's, and reading config files."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import detectron2
import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.modeling import BACKBONE_REGISTRY
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from aa_plugins.config import AAConfig
from aa_plugins.config_files import get_config_file

# Before the name of a config that comes with the package, or with Detectron2, in _BASE_.
OURS, THEIRS = "aa_plugins::", "detectron2::"
ZOO = Path(detectron2.__file__).parent / "model_zoo/configs"
logger = logging.getLogger(__name__)

# Which builder reads a node of ours in place of Detectron2's; the last for any other.
READERS = {
    "AA": {
        "build_resnet_backbone": "build_aa_resnet_backbone",
        "build_retinanet_resnet_fpn_backbone": "build_aa_retinanet_resnet_fpn_backbone",
        "": "build_aa_resnet_fpn_backbone",
    },
    "TIMM": {"": "build_aa_timm_fpn_backbone"},
}
# What a LazyConfig defines, and what we add to its `train`.
PARTS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
# Keys of MODEL.AA that are no fields of AAConfig.
OWN = ("P6", "CONSISTENCY")
CONSISTENCY = 1.0
FILTERS = {"lr_factor": 1.0, "weight_decay": None}


def add_aa_config(cfg: CfgNode) -> None:
    """Add the keys below to `cfg`, before files are merged."""
    Node = type(cfg)  # merging takes nodes of one class only
    # The fields of AAConfig in upper case; they take effect in the build_aa_* backbones. The
    # filters of stem and early stages train whatever MODEL.BACKBONE.FREEZE_AT is.
    cfg.MODEL.AA = Node({name.upper(): value for name, value in asdict(AAConfig()).items()})
    # Also filter before the subsampling that makes the FPN's P6 from P5.
    cfg.MODEL.AA.P6 = False
    # Of META_ARCHITECTURE "ConsistentRCNN": weight of the consistency term in training.
    cfg.MODEL.AA.CONSISTENCY = CONSISTENCY

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
    values = {name.lower(): value for name, value in cfg.MODEL.AA.items() if name not in OWN}
    return AAConfig.from_dict(values)


def load_yaml(
    config_file: str, overrides: list[str] | None = None, weights: str | None = None
) -> CfgNode:
    """Detectron2's config with our nodes, a file and `KEY VALUE` overrides; frozen.

    Args:
        weights: overrides MODEL.WEIGHTS.

    Raises:
        FileNotFoundError: for a file, or a base of it, that doesn't exist.
        ValueError: for a key that doesn't exist, naming the nearest that does, a wrong value, a
            backbone that isn't registered, or a node that the backbone doesn't read.
    """
    cfg = _Config(get_cfg())
    add_aa_config(cfg)
    known = list(_keys(cfg))
    overrides = list(overrides or [])
    if len(overrides) % 2:
        raise ValueError(f"{' '.join(overrides)}: overrides of a yaml file are pairs, KEY VALUE")
    try:
        asked = _asked(config_file, overrides)
        cfg.merge_from_file(config_file, allow_unsafe=False)
        cfg.merge_from_list(overrides)
    except FileNotFoundError as error:
        said = f"no file {error.filename}, its _BASE_" if error.filename else str(error)
        raise FileNotFoundError(f"{config_file}: {said}") from error
    except YAMLError as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{config_file} isn't plain YAML, without code: {text}") from error
    except (AssertionError, KeyError, ValueError, AttributeError, TypeError) as error:
        message = str(error.args[0]) if error.args else repr(error)
        unknown = message.rsplit(": ", 1)[-1]
        nearest = difflib.get_close_matches(unknown, known, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest and nearest[0] != unknown else ""
        raise ValueError(f"{config_file}: {message}{hint}") from error
    if weights is not None:
        cfg.MODEL.WEIGHTS = weights
    cfg.MODEL.DEVICE = _device(cfg.MODEL.DEVICE, "MODEL.DEVICE")
    aa_config(cfg)  # a wrong value is found before any work is done
    _check_backbone(cfg, config_file, asked)
    cfg.freeze()
    return cfg


def pairs_of(overrides: Iterable[str]) -> list[str]:
    """KEY VALUE pairs from KEY=VALUE; ValueError for one without a sign of equality."""
    overrides = list(overrides)
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"{override}: give KEY=VALUE")
    return [part for override in overrides for part in override.split("=", 1)]


def _asked(config_file: str, overrides: list[str]) -> set[str]:
    """Our nodes below MODEL that a file with its bases, or an override, names."""
    text = _Config.load_yaml_with_base(config_file, allow_unsafe=False)
    if not isinstance(text, dict):
        raise ValueError("it holds no KEY: value lines")
    named = [key.split(".")[1] for key in overrides[::2] if key.startswith("MODEL.")]
    return {*(text.get("MODEL") or {}), *named} & set(READERS)


def _check_backbone(cfg: CfgNode, config_file: str, asked: set[str]) -> None:
    """Detectron2's own builders read none of our nodes; those of a user's code may."""
    name = cfg.MODEL.BACKBONE.NAME
    if name not in BACKBONE_REGISTRY:
        known = [known for known, _ in BACKBONE_REGISTRY]
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"choose from {', '.join(known)}"
        raise ValueError(f"{config_file}: no backbone MODEL.BACKBONE.NAME {name!r}; {hint}")
    module = BACKBONE_REGISTRY.get(name).__module__
    for node in sorted(asked):
        unused = cfg.MODEL.AA.FILTER == "none" or cfg.MODEL.ROI_HEADS.NAME == "AARes5ROIHeads"
        if node == "AA" and unused:
            continue
        stranger = module.startswith("detectron2.") or (
            node == "TIMM" and module.startswith("aa_plugins.") and "timm" not in name
        )
        if stranger:
            raise ValueError(
                f"{config_file}: MODEL.BACKBONE.NAME {name!r} doesn't read MODEL.{node}: use "
                f"{READERS[node].get(name, READERS[node][''])!r}, or leave MODEL.{node} out"
            )


def _device(name: str, key: str) -> str:
    """The device of a config, or the CPU where it asks for a GPU that isn't there."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        logger.warning(f"No GPU: {key} is cpu")
        return "cpu"
    return name


def load_lazy(
    config_file: str, overrides: list[str] | None = None, weights: str | None = None
) -> DictConfig:
    """A LazyConfig with `key=value` overrides; `+key=value` adds a key.

    `train.filters` is added where the file doesn't have it: `lr_factor`, of the filters' learning
    rate, and `weight_decay`, theirs in place of the optimizer's.

    Args:
        weights: overrides train.init_checkpoint.

    Raises:
        ValueError: for a file that doesn't run or lacks a part, or for a key that doesn't exist,
            naming the nearest that does.
    """
    cfg = _read_lazy(config_file)
    for override in overrides or []:
        if "=" not in override:
            raise ValueError(f"{override}: overrides of a LazyConfig are key=value")
        if not override.startswith("+"):
            _check_exists(cfg, override.split("=", 1)[0], config_file)
    try:
        cfg = LazyConfig.apply_overrides(cfg, overrides or [])
    except (AssertionError, KeyError, OmegaConfBaseException) as error:
        raise ValueError(f"{config_file}: {str(error).splitlines()[0]}") from error
    unknown = set(cfg.train.filters) - set(FILTERS)
    if unknown:
        raise ValueError(
            f"{config_file}: no key train.filters.{min(unknown)}: known are {', '.join(FILTERS)}"
        )
    if weights is not None:
        cfg.train.init_checkpoint = weights
    cfg.train.device = _device(cfg.train.device, "train.device")
    return cfg


def _read_lazy(config_file: str) -> DictConfig:
    try:
        cfg = LazyConfig.load(config_file)
    except OSError:
        raise
    except Exception as error:  # the file is code: anything may go wrong in it
        raise ValueError(f"{config_file} doesn't run: {type(error).__name__}: {error}") from error
    missing = [part for part in PARTS if not isinstance(cfg, DictConfig) or part not in cfg]
    if missing:
        raise ValueError(
            f"{config_file} has no {missing[0]}: a LazyConfig defines {', '.join(PARTS)}"
        )
    cfg.train.filters = {**FILTERS, **cfg.train.get("filters", {})}
    return cfg


def instantiated(node: DictConfig, part: str) -> Any:
    """What a part of a LazyConfig makes; ValueError for what its callable doesn't take."""
    try:
        return instantiate(node)
    except (TypeError, AssertionError, AttributeError) as error:
        raise ValueError(f"the config's {part} can't be made: {error}") from error


class _Config(CfgNode):
    """Takes "aa_plugins::detectron2/….yaml" for a `_BASE_`, and "detectron2::….yaml" for one of
    Detectron2's own zoo.

    Detectron2 puts the folder of the file that inherits before it, and before the bases that the
    base itself names below it.
    """

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[str]:
        _, ours, name = filename.partition(OURS)
        if ours:
            filename = get_config_file(os.path.normpath(name))
        _, theirs, name = filename.partition(THEIRS)
        return super()._open_cfg(os.path.normpath(ZOO / name) if theirs else filename)


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
