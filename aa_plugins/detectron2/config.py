"""Configuration nodes that anti-aliasing adds to Detectron2's."""

from __future__ import annotations

from dataclasses import asdict

from detectron2.config import CfgNode

from aa_plugins.config import AAConfig


def add_aa_config(cfg: CfgNode) -> None:
    """Add `MODEL.AA`, `MODEL.TIMM` and `DATASETS.COCO_PATHS` to `cfg`, before files are merged."""
    # The fields of AAConfig in upper case; they take effect in the build_aa_* backbones. The
    # filters of stem and early stages train whatever MODEL.BACKBONE.FREEZE_AT is.
    cfg.MODEL.AA = CfgNode({name.upper(): value for name, value in asdict(AAConfig()).items()})
    # Also filter before the subsampling that makes the FPN's P6 from P5.
    cfg.MODEL.AA.P6 = False

    # What build_aa_timm_backbone builds. MODEL.WEIGHTS may be a checkpoint of timm's own, as
    # "PATH?matching_heuristics=True".
    cfg.MODEL.TIMM = CfgNode()
    cfg.MODEL.TIMM.NAME = "convnext_tiny"
    # Download timm's weights for that name.
    cfg.MODEL.TIMM.PRETRAINED = False
    # Stages in timm's order are res2 to res5, at strides 4 to 32.
    cfg.MODEL.TIMM.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # Rate of stochastic depth.
    cfg.MODEL.TIMM.DROP_PATH_RATE = 0.0

    # Datasets in COCO's format by path: name: [annotation file, image folder]. Relative paths start
    # at $DETECTRON2_DATASETS (./datasets), as those of Detectron2's own datasets do.
    cfg.DATASETS.COCO_PATHS = CfgNode(new_allowed=True)


def aa_config(cfg: CfgNode) -> AAConfig:
    """The AAConfig that `MODEL.AA` describes.

    Raises:
        ValueError: for a value that no filter has.
    """
    values = {name.lower(): value for name, value in cfg.MODEL.AA.items() if name != "P6"}
    return AAConfig.from_dict(values)
