"""Shift consistency of predictions: views, agreement, statistics. Knows no host framework."""

from aa_plugins.evaluation.bad_images import BadImage, LeftOut, attempt, check_labels
from aa_plugins.evaluation.checks import finite_outputs, require_finite, require_finite_weights
from aa_plugins.evaluation.classification import ClassificationConsistency
from aa_plugins.evaluation.identity import dataset_ids, image_id, image_ids, run_identity
from aa_plugins.evaluation.instance import InstanceConsistency
from aa_plugins.evaluation.protocol import PRESETS, Protocol, grid_shifts, preset, surface_shifts
from aa_plugins.evaluation.records import RecordWriter, read_records
from aa_plugins.evaluation.semantic import SemanticConsistency
from aa_plugins.evaluation.views import Box, Pair, View, ViewPlan, extract

__all__ = [
    "PRESETS",
    "BadImage",
    "Box",
    "ClassificationConsistency",
    "InstanceConsistency",
    "LeftOut",
    "Pair",
    "Protocol",
    "RecordWriter",
    "SemanticConsistency",
    "View",
    "ViewPlan",
    "attempt",
    "check_labels",
    "dataset_ids",
    "extract",
    "finite_outputs",
    "grid_shifts",
    "image_id",
    "image_ids",
    "preset",
    "read_records",
    "require_finite",
    "require_finite_weights",
    "run_identity",
    "surface_shifts",
]
