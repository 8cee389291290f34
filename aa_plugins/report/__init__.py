"""Results to a terminal table, JSON, Markdown and one self-contained HTML page with plots."""

from aa_plugins.report.flips import flip_picture
from aa_plugins.report.page import Report, write_json
from aa_plugins.report.table import Table, difference_table, result_table

__all__ = [
    "Report",
    "Table",
    "difference_table",
    "flip_picture",
    "result_table",
    "write_json",
]
