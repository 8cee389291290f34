"""Rows of measurements as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

COLUMNS = {
    "case": ("case", "{}"),
    "variant": ("variant", "{}"),
    "minimum": ("min ms", "{:.1f}"),
    "median": ("median ms", "{:.1f}"),
    "over_plain": ("× plain", "{:.2f}"),
    "faster_than_published": ("published ÷ this", "{:.1f}"),
    "gigamacs": ("GMAC", "{:.2f}"),
    "of_copy_bandwidth": ("of copy's bytes/s", "{:.0%}"),
    "peak_mebibytes": ("peak MiB", "{:.0f}"),
}


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """One table; columns that no row fills are left out. Seconds are shown as milliseconds."""
    names = [name for name in COLUMNS if any(row.get(name) is not None for row in rows)]
    lines = [[COLUMNS[name][0] for name in names], ["---"] * len(names)]
    for row in rows:
        scaled = row | {name: 1e3 * row[name] for name in ("minimum", "median")}
        lines.append(
            [
                "" if scaled.get(name) is None else COLUMNS[name][1].format(scaled[name])
                for name in names
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
