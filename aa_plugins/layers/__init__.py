"""Filters as modules: parameters and their initialisation."""

from aa_plugins.layers.adaptive import AdaptiveBlurPool2d
from aa_plugins.layers.blur_pool import BlurPool2d
from aa_plugins.layers.filter_bank import FilterBankPool2d
from aa_plugins.layers.predicted import PredictedFilter, filters_of, fuse, reset_filters

__all__ = [
    "AdaptiveBlurPool2d",
    "BlurPool2d",
    "FilterBankPool2d",
    "PredictedFilter",
    "filters_of",
    "fuse",
    "reset_filters",
]
