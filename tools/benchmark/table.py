"""Rows of measurements as Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aa_plugins.report.table import Table

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
    cells = []
    for row in rows:
        scaled = row | {name: 1e3 * row[name] for name in ("minimum", "median")}
        found = ((COLUMNS[name][1], scaled.get(name)) for name in names)
        cells.append(tuple("" if v is None else form.format(v) for form, v in found))
    return Table(tuple(COLUMNS[name][0] for name in names), tuple(cells)).markdown()


def measured(folder: Path) -> list[dict[str, Any]]:
    """The rows of every JSON that `python tools/benchmark` wrote into a folder.

    Raises:
        ValueError: where there is none.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ValueError(f"no measurements in {folder}: run tools/benchmark --out there first")
    return [row for file in files for row in json.loads(file.read_text())["rows"]]


def cases(rows: Sequence[dict[str, Any]]) -> str:
    """A table for each case."""
    names = dict.fromkeys(row["case"] for row in rows)
    return "\n\n".join(as_markdown([r for r in rows if r["case"] == name]) for name in names)


def ratios(rows: Sequence[dict[str, Any]], column: str, base: str) -> str:
    """Cases × variants: a column of ratios to the variant `base`, in the format of `COLUMNS`."""
    rows = [row for row in rows if row.get(column) is not None]
    variants = [*dict.fromkeys(row["variant"] for row in rows if row["variant"] != base)]
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        found = {row["variant"]: row for row in rows if row["case"] == case}
        cells = (COLUMNS[column][1].format(found[variant][column]) for variant in variants)
        lines.append((case, *cells))
    return Table(("", *variants), tuple(lines)).markdown()


def of_suite(rows: Sequence[dict[str, Any]], suite: str) -> list[dict[str, Any]]:
    """The rows that one suite measured."""
    return [row for row in rows if row["suite"] == suite]


# What a page can show of a folder of measurements.
KINDS: dict[str, Callable[[Sequence[dict[str, Any]]], str]] = {
    **{
        suite: lambda rows, suite=suite: cases(of_suite(rows, suite))
        for suite in ("layer", "network", "host", "evaluation")
    },
    "over-plain": lambda rows: ratios(rows, "over_plain", "plain"),
    "layer-speed": lambda rows: ratios(
        of_suite(rows, "layer"), "faster_than_published", "published formula"
    ),
}
