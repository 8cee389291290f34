"""Rows of measurements as Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aa_plugins.report.table import Table

COLUMNS = {
    "case": ("case", "{}"),
    "runtime": ("runtime", "{}"),
    "variant": ("variant", "{}"),
    "minimum": ("min ms", "{:.1f}"),
    "median": ("median ms", "{:.1f}"),
    "over_plain": ("× plain", "{:.2f}"),
    "faster_than_published": ("published ÷ this", "{:.1f}"),
    "nodes": ("nodes", "{}"),
    "megabytes": ("MB", "{:.1f}"),
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


def runtime_ratios(rows: Sequence[dict[str, Any]], column: str, suite: str = "runtime") -> str:
    """Networks in runtimes × variants, one column of the rows, in the format of `COLUMNS`."""
    rows = [row for row in of_suite(rows, suite) if row.get(column) is not None]
    variants = [*dict.fromkeys(row["variant"] for row in rows)]
    lines = []
    for place in dict.fromkeys((row["case"], row["runtime"]) for row in rows):
        found = {r["variant"]: r for r in rows if (r["case"], r["runtime"]) == place}
        cells = (found[v][column] if v in found else None for v in variants)
        form = COLUMNS[column][1]
        lines.append((*place, *("" if cell is None else form.format(cell) for cell in cells)))
    return Table(("", "runtime", *variants), tuple(lines)).markdown()


def quantization(rows: Sequence[dict[str, Any]]) -> str:
    """Networks × precisions: accuracy, agreement, and what the precision changed, in percent."""
    lines = []
    for row in of_suite(rows, "quantization"):
        size = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}"
        cells = [row["variant"], row["precision"], size]
        for name in ("accuracy", "agreement"):
            change = row[f"{name}_change"]
            cells.append(f"{row[name]['value']:.1f}")
            interval = f"[{change['low']:+.1f}, {change['high']:+.1f}]"
            same = row["precision"] == "float32"
            cells.append("" if same else f"{change['difference']:+.1f} {interval}")
        lines.append(tuple(cells))
    columns = ("", "precision", "MB", "accuracy", "change", "agreement", "change ")
    return Table(columns, tuple(lines)).markdown()


def of_suite(rows: Sequence[dict[str, Any]], *suites: str) -> list[dict[str, Any]]:
    """The rows that these suites measured."""
    return [row for row in rows if row["suite"] in suites]


# What a page can show of a folder of measurements.
KINDS: dict[str, Callable[[Sequence[dict[str, Any]]], str]] = {
    **{
        suite: lambda rows, suite=suite: cases(of_suite(rows, suite))
        for suite in ("layer", "network", "host", "evaluation", "runtime", "training")
    },
    "over-plain": lambda rows: ratios(of_suite(rows, "network", "host"), "over_plain", "plain"),
    "runtime-over-plain": lambda rows: runtime_ratios(rows, "over_plain"),
    "compiled-over-plain": lambda rows: runtime_ratios(rows, "over_plain", "compiled"),
    "quantization": quantization,
    "runtime-nodes": lambda rows: runtime_ratios(rows, "nodes"),
    "layer-speed": lambda rows: ratios(
        of_suite(rows, "layer"), "faster_than_published", "published formula"
    ),
}
