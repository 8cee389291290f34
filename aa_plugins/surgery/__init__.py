"""Conversion of networks: finding sites, converting them, loading weights into the result."""

from aa_plugins.surgery.antialias import antialias, build_filter
from aa_plugins.surgery.report import AntialiasReport
from aa_plugins.surgery.weights import filter_keys, load_plain_or_converted

__all__ = ["AntialiasReport", "antialias", "build_filter", "filter_keys", "load_plain_or_converted"]
