"""Shift consistency of predictions: views, agreement, statistics. Knows no host framework."""

from .classification import ClassificationConsistency
from .instance import InstanceConsistency
from .protocol import PRESETS, Protocol, grid_shifts, preset, surface_shifts
from .records import RecordWriter, read_records
from .semantic import SemanticConsistency
from .views import Box, Pair, View, ViewPlan, extract

__all__ = [
    "PRESETS",
    "Box",
    "ClassificationConsistency",
    "InstanceConsistency",
    "Pair",
    "Protocol",
    "RecordWriter",
    "SemanticConsistency",
    "View",
    "ViewPlan",
    "extract",
    "grid_shifts",
    "preset",
    "read_records",
    "surface_shifts",
]
