"""Filters on tensors: no parameters, no modules."""

from aa_plugins.ops.backends import backend_report
from aa_plugins.ops.blur import adaptive_blur2d, binomial_taps, blur2d
from aa_plugins.ops.dense_max import dense_max2d
from aa_plugins.ops.geometry import out_size, pad2d
from aa_plugins.ops.reference import taps_from_logits

__all__ = [
    "adaptive_blur2d",
    "backend_report",
    "binomial_taps",
    "blur2d",
    "dense_max2d",
    "out_size",
    "pad2d",
    "taps_from_logits",
]
