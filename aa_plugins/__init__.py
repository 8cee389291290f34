"""Adaptive anti-aliasing for detection and segmentation networks."""

from aa_plugins.config import AAConfig
from aa_plugins.layers import AdaptiveBlurPool2d, BlurPool2d, FilterBankPool2d
from aa_plugins.surgery import AntialiasReport, antialias

__version__ = "0.1.0"

__all__ = [
    "AAConfig",
    "AdaptiveBlurPool2d",
    "AntialiasReport",
    "BlurPool2d",
    "FilterBankPool2d",
    "antialias",
]
