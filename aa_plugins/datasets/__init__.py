"""Synthetic data with exact masks, in the layouts that the hosts read."""

from aa_plugins.datasets.layouts import LAYOUTS, write_shapes
from aa_plugins.datasets.shapes import CLASSES, Scene, draw_scene

__all__ = ["CLASSES", "LAYOUTS", "Scene", "draw_scene", "write_shapes"]
