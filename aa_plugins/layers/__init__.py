"""Filters as modules: parameters and their initialisation."""

from aa_plugins.layers.adaptive import AdaptiveBlurPool2d
from aa_plugins.layers.blur_pool import BlurPool2d
from aa_plugins.layers.filter_bank import FilterBankPool2d
from aa_plugins.layers.frequency_low_cut import FrequencyLowCutPool2d
from aa_plugins.layers.learned import LearnedFilter, filters_of, reset_filters
from aa_plugins.layers.polyphase import AdaptivePolyphasePool2d
from aa_plugins.layers.predicted import PredictedFilter, fuse
from aa_plugins.layers.trained import TrainedBlurPool2d

__all__ = [
    "AdaptiveBlurPool2d",
    "AdaptivePolyphasePool2d",
    "BlurPool2d",
    "FilterBankPool2d",
    "FrequencyLowCutPool2d",
    "LearnedFilter",
    "PredictedFilter",
    "TrainedBlurPool2d",
    "filters_of",
    "fuse",
    "reset_filters",
]
