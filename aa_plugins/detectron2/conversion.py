"""What of a network is anti-aliased, in a line: a run says it at its start and at its end."""

from __future__ import annotations

from collections import Counter

from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn

from aa_plugins.config import AAConfig
from aa_plugins.detectron2.backbone import AARes5ROIHeads
from aa_plugins.detectron2.config import CONSISTENCY
from aa_plugins.layers.kinds import kind_of


def conversion(model: nn.Module) -> str:
    """What was converted: how many filters of which kind, or that nothing was."""
    counts = Counter(filter(None, map(kind_of, model.modules())))
    if not counts:
        return (
            "Anti-aliasing: nothing was converted, the network is plain (MODEL.BACKBONE.NAME "
            "build_aa_..., MODEL.AA.FILTER or antialias_backbone put filters in)"
        )
    text = ", ".join(f"{count} {kind} filters" for kind, count in sorted(counts.items()))
    heads = getattr(model, "roi_heads", None)
    if isinstance(heads, Res5ROIHeads) and not isinstance(heads, AARes5ROIHeads):
        if not _filtered(heads):
            text += "; left alone: res5 of the ROI heads (MODEL.ROI_HEADS.NAME AARes5ROIHeads)"
    return f"Anti-aliasing: {text}"


def check_conversion(model: nn.Module, cfg: CfgNode) -> None:
    """Compare a network with what `MODEL.AA` asks for beside its defaults.

    Raises:
        ValueError: where the builder of the backbone hasn't read a node.
    """
    name = f"MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME!r}"
    aa = cfg.MODEL.AA
    default = {key.upper(): value for key, value in AAConfig().to_dict().items()}
    changed = any(aa[key] != value for key, value in default.items())
    if aa.FILTER != "none" and changed and not _filtered(model):
        raise ValueError(
            f"MODEL.AA.FILTER is {aa.FILTER!r}, but the network has no filter: {name} doesn't read "
            "MODEL.AA; use build_aa_resnet_fpn_backbone, or call antialias_backbone in it"
        )
    if aa.CONSISTENCY != CONSISTENCY and not hasattr(model, "consistency"):
        raise ValueError(
            f"MODEL.AA.CONSISTENCY is {aa.CONSISTENCY!r}, but MODEL.META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE!r} doesn't read it: use 'ConsistentRCNN'"
        )
    top = getattr(getattr(model, "backbone", None), "top_block", None)
    if aa.FILTER != "none" and aa.P6 and not (top and _filtered(top)):
        raise ValueError(
            f"MODEL.AA.P6 is True, but {name} has no P6 that is filtered: use "
            "build_aa_resnet_fpn_backbone, or leave MODEL.AA.P6 out"
        )


def _filtered(network: nn.Module) -> bool:
    return any(kind_of(module) for module in network.modules())
