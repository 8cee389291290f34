"""A report: results, paired differences, how they came about, and pictures, in all its forms."""

import base64
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from aa_plugins.report.plots import branches, curve_plot, value_plot
from aa_plugins.report.table import Table, difference_table, result_table, top_level

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: 0.3rem 0.8rem; border-bottom: 1px solid #ccc; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; margin: 0.5rem 0 }
figure { margin: 1rem 0 }
"""


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Args:
        title: one line.
        results: ``{variant: {metric: entry}}``, see table.py.
        differences: ``{"adaptive - baseline": {metric: entry}}``.
        notes: how it came about (command, data, protocol, seeds), as JSON values.
        pictures: caption to figure, for the page alone.
        metrics: the tables' columns; every metric that isn't a branch unless given.
    """

    title: str
    results: Mapping[str, Mapping]
    differences: Mapping[str, Mapping] = field(default_factory=dict)
    notes: Mapping[str, object] = field(default_factory=dict)
    pictures: Mapping[str, Figure] = field(default_factory=dict)
    metrics: tuple[str, ...] | None = None

    def tables(self) -> list[Table]:
        """The results, and the differences if there are any."""
        tables = [result_table(self.results, self.metrics)]
        if self.differences:
            tables.append(difference_table(self.differences, self.metrics))
        return tables

    def text(self) -> str:
        """For a terminal."""
        return "\n\n".join([self.title, *(table.text() for table in self.tables())])

    def markdown(self) -> str:
        """Title, tables and notes."""
        notes = "\n".join(f"- {name}: {_inline(value)}" for name, value in self.notes.items())
        parts = [f"# {self.title}", *(table.markdown() for table in self.tables()), notes]
        return "\n\n".join(part for part in parts if part) + "\n"

    def html(self) -> str:
        """One page that needs no other file."""
        metrics = top_level(self.results) if self.metrics is None else self.metrics
        plots = [value_plot(self.results, metrics)] if metrics else []
        plots += [curve_plot(self.results, branch) for branch in branches(self.results)]
        notes = "\n".join(
            f"<li>{escape(name)}: <code>{escape(_inline(value))}</code></li>"
            for name, value in self.notes.items()
        )
        return "\n".join(
            [
                "<!doctype html>",
                f'<html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>',
                f"<style>{STYLE}</style></head><body>",
                f"<h1>{escape(self.title)}</h1>",
                "<p>Brackets and bars are 95 % intervals.</p>",
                *(table.html() for table in self.tables()),
                *(_embed(plot) for plot in plots),
                *(_embed(figure, caption) for caption, figure in self.pictures.items()),
                f"<ul>\n{notes}\n</ul>",
                "</body></html>\n",
            ]
        )

    def save(self, folder: str | Path, name: str = "report") -> None:
        """Write NAME.json, NAME.md and NAME.html."""
        folder = Path(folder)
        content = {"title": self.title, "results": self.results, "notes": self.notes}
        write_json(folder / f"{name}.json", {**content, "differences": self.differences})
        (folder / f"{name}.md").write_text(self.markdown(), encoding="utf-8")
        (folder / f"{name}.html").write_text(self.html(), encoding="utf-8")


def write_json(path: str | Path, content: object) -> None:
    """Write JSON whole or not at all; NumPy numbers and arrays become plain ones.

    Raises:
        ValueError: NaN or infinity, which JSON doesn't have; use None for what is undefined.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, allow_nan=False, default=_plain) + "\n"
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _plain(value: object) -> object:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} can't be written as JSON: {value!r}")


def _inline(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=_plain)


def _embed(figure: Figure, caption: str = "") -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(caption)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
