"""Time and memory of the filters beside the plain network, fixed blur and published formula."""

from benchmark.measure import Timing, interleaved, peak_growths
from benchmark.published import PublishedFilter
from benchmark.suites import SUITES
from benchmark.table import as_markdown

__all__ = ["SUITES", "PublishedFilter", "Timing", "as_markdown", "interleaved", "peak_growths"]
