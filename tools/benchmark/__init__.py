"""Time and memory of the filters beside the plain network, fixed blur and published formula."""

from benchmark.measure import Timing, interleaved, peak_growths
from benchmark.published import PublishedFilter
from benchmark.suites import SUITES, below_the_bar
from benchmark.table import as_markdown

__all__ = [
    "SUITES",
    "PublishedFilter",
    "Timing",
    "as_markdown",
    "below_the_bar",
    "interleaved",
    "peak_growths",
]
