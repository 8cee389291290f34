"""The total stride of a detector, read off the network."""

from __future__ import annotations

from torch import nn


def total_stride(model: nn.Module) -> int:
    """S of a detector in pixels: of the coarsest map that proposals or heads read.

    A feature pyramid mixes all of its levels into each, so there S isn't less than that of the
    backbone's last stage. What is read says the network itself: every module outside of the
    backbone that lists names of its maps (`in_features`, `box_in_features`, `head_in_features`).

    Raises:
        ValueError: for a network without one of Detectron2's backbones.
    """
    backbone = getattr(model, "backbone", None)
    if not hasattr(backbone, "output_shape"):
        raise ValueError(
            f"{type(model).__name__} has no backbone with output_shape(), which says its strides: "
            "give a detector whose backbone is a detectron2.modeling.Backbone"
        )
    shapes = backbone.output_shape()
    inside = set(backbone.modules())
    outside = [module for module in model.modules() if module not in inside]
    read = {name for module in outside for name in _features(module)} & set(shapes)
    strides = [shapes[name].stride for name in read or shapes]
    return max([*strides, backbone.size_divisibility])


def _features(module: nn.Module) -> list[str]:
    """Names of maps that a head or a detector reads."""
    listed = [v for name, v in vars(module).items() if name.endswith("in_features")]
    listed = [value for value in listed if isinstance(value, (list, tuple))]
    return [name for value in listed for name in value if isinstance(name, str)]
