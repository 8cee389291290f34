"""Filters on tensors: no parameters, no modules."""

from aa_plugins.ops.blur import adaptive_blur2d, binomial_taps, blur2d, out_size, pad2d

__all__ = ["adaptive_blur2d", "binomial_taps", "blur2d", "out_size", "pad2d"]
