"""A report: results, paired differences, how they came about, and pictures, in all its forms."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aa_plugins.report import render
from aa_plugins.report.elements import Page, Picture, Section
from aa_plugins.report.plots import result_plots
from aa_plugins.report.table import Table, difference_table, result_table, top_level


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Args:
        title: one line.
        results: ``{variant: {metric: entry}}``, see table.py.
        differences: ``{"adaptive - baseline": {metric: entry}}``.
        notes: how it came about (command, data, protocol, seeds), as JSON values.
        pictures: for the page alone.
        metrics: the tables' columns; every metric that isn't a branch unless given.
        verdict: what was found, in one sentence with its interval; the page begins with it.
    """

    title: str
    results: Mapping[str, Mapping]
    differences: Mapping[str, Mapping] = field(default_factory=dict)
    notes: Mapping[str, object] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    metrics: tuple[str, ...] | None = None
    verdict: str = "Brackets are 95 % intervals."

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
        notes = "\n".join(f"- {name}: {render.inline(value)}" for name, value in self.notes.items())
        parts = [f"# {self.title}", *(table.markdown() for table in self.tables()), notes]
        return "\n\n".join(part for part in parts if part) + "\n"

    def page(self) -> Page:
        """Verdict, pictures, tables, and plots of everything measured."""
        metrics = top_level(self.results) if self.metrics is None else self.metrics
        sections = [
            Section("Numbers", "Brackets are 95 % intervals.", self.tables()),
            Section("In detail", "", result_plots(self.results, metrics)),
        ]
        if self.pictures:
            sections.insert(0, Section("What changes", "", self.pictures))
        return Page(self.title, self.verdict, sections, self.notes)

    def html(self) -> str:
        """One page that needs no other file."""
        return render.html(self.page())

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
    text = json.dumps(content, indent=2, allow_nan=False, default=render.plain) + "\n"
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
