"""Time and memory of the filters beside the plain network, fixed blur and published formula."""

from aa_plugins.benchmark.measure import Timing, interleaved, peak_growths
from aa_plugins.benchmark.published import PublishedFilter
from aa_plugins.benchmark.suites import SUITES
from aa_plugins.benchmark.table import as_markdown

__all__ = ["SUITES", "PublishedFilter", "Timing", "as_markdown", "interleaved", "peak_growths"]
