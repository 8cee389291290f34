"""What a network does with frequencies and positions, and whether two networks agree."""

from aa_plugins.diagnostics.equivalence import awaken, calibrate, maps_of, relative_difference

__all__ = ["awaken", "calibrate", "maps_of", "relative_difference"]
