"""Converted networks for the runtimes that people deploy, by standard operators alone."""

from aa_plugins.export.filters import exportable
from aa_plugins.export.network import Exported, export

__all__ = ["Exported", "export", "exportable"]
