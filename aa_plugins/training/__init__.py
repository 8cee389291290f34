"""Making a trained network shift consistent without labels; knows no host framework."""

from aa_plugins.training.average import PhaseAverage, phase_average
from aa_plugins.training.heads import Heads
from aa_plugins.training.instances import Detections, Instances
from aa_plugins.training.loss import divergence
from aa_plugins.training.measure import Agreement
from aa_plugins.training.objective import Classes, Objective
from aa_plugins.training.settings import Settings
from aa_plugins.training.stabilize import Report, stabilize
from aa_plugins.training.statistics import transfer_statistics
from aa_plugins.training.views import MovedViews, moved_views

__all__ = [
    "Agreement",
    "Classes",
    "Detections",
    "Heads",
    "Instances",
    "MovedViews",
    "Objective",
    "PhaseAverage",
    "Report",
    "Settings",
    "divergence",
    "moved_views",
    "phase_average",
    "stabilize",
    "transfer_statistics",
]
