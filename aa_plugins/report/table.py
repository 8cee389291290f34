"""Trees of results to tables, and tables to text, Markdown and HTML.

A tree of results is ``{variant: {metric: entry}}`` where an entry is a number, or a value with its
interval, ``{"value", "low", "high"}``, or a dictionary of further entries (a curve, controls …).
A tree of differences is the same with ``{"difference", "low", "high"}``. An entry may say what was
resampled (``unit``, ``block``), have a second interval over trainings, too (``seeds_low``,
``seeds_high``), and a ``remark`` that is printed beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

ABSENT = "–"
UNITS = {"sequence": "whole sequences", "clip": "clips", "episode": "episodes", "class": "classes"}


@dataclass(frozen=True)
class Table:
    """A header and rows of cells; the first column names the row.

    Args:
        caption: a line below, such as what intervals are over.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def text(self) -> str:
        """Aligned columns for a terminal."""
        lines = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        aligned = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
            for line in lines
        ]
        below = ["", self.caption] if self.caption else []
        return "\n".join([aligned[0], "-" * len(aligned[0]), *aligned[1:], *below])

    def markdown(self) -> str:
        """A Markdown table, numbers to the right."""
        lines = [self.header, ("---",) + ("---:",) * (len(self.header) - 1), *self.rows]
        table = "\n".join(f"| {' | '.join(_escape_pipes(line))} |" for line in lines)
        return f"{table}\n\n{self.caption}" if self.caption else table

    def html(self) -> str:
        """An HTML table."""
        lines = [
            "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in line)
            for tag, line in [("th", self.header), *(("td", row) for row in self.rows)]
        ]
        table = "<table>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"
        return f"{table}\n<p>{escape(self.caption)}</p>" if self.caption else table


def result_table(results: Mapping[str, Mapping], metrics: Sequence[str] | None = None) -> Table:
    """A row per variant, a column per metric, each value with its interval.

    Args:
        results: tree of results.
        metrics: the columns; a branch's entry is named ``"controls/same_phase"``. All entries that
            aren't inside a branch unless given.
    """
    metrics = top_level(results) if metrics is None else metrics
    return _table("", results, metrics, "value")


def difference_table(
    differences: Mapping[str, Mapping], metrics: Sequence[str] | None = None
) -> Table:
    """A row per compared pair, such as ``"adaptive - baseline"``, with 95 % intervals.

    Raises:
        ValueError: a difference that says nothing about its interval.
    """
    metrics = top_level(differences) if metrics is None else metrics
    for pair, tree in differences.items():
        for metric in metrics:
            entry = find(tree, metric)
            if entry is not None and not (is_entry(entry) and {"low", "high"} <= entry.keys()):
                raise ValueError(f"{pair}: {metric} has no interval, give its low and high")
    return _table("paired difference", differences, metrics, "difference")


def top_level(results: Mapping[str, Mapping]) -> list[str]:
    """The metrics that aren't branches, in order of appearance."""
    return list(
        dict.fromkeys(
            metric
            for tree in results.values()
            for metric, entry in tree.items()
            if is_entry(entry) or not isinstance(entry, Mapping)
        )
    )


def is_entry(entry: object) -> bool:
    """Whether this is a value with its interval, not a branch."""
    return isinstance(entry, Mapping) and ("value" in entry or "difference" in entry)


def find(tree: Mapping, metric: str) -> Mapping | float | None:
    """The entry at a path such as ``"controls/same_phase"``; None where there is none."""
    entry = tree
    for name in metric.split("/"):
        entry = entry.get(name) if isinstance(entry, Mapping) else None
    return entry


def label(metric: str) -> str:
    """A metric's path as people read it."""
    return metric.replace("/", " ").replace("_", " ")


def units(entries: Sequence[object]) -> str:
    """What the intervals of entries are over, in words; empty if none says."""
    entries = [e for e in entries if isinstance(e, Mapping) and e.get("low") is not None]
    said = []
    if any(entry.get("unit") == "image" for entry in entries):
        said.append("images, taken to be independent")
    for unit, words in UNITS.items():
        if any(entry.get("unit") == unit for entry in entries):
            said.append(words)
    blocks = sorted({entry["block"] for entry in entries if entry.get("unit") == "block"})
    if blocks:
        span = " to ".join(map(str, dict.fromkeys((blocks[0], blocks[-1]))))
        said.append(f"blocks of {span} frames within sequences")
    if not said:
        return ""
    over = f"95 % intervals [over {' or '.join(said)}]"
    if any("seeds_low" in entry for entry in entries):
        over += " and ⟨over these and seeds⟩"
    return f"{over}."


def _table(corner: str, trees: Mapping[str, Mapping], metrics: Sequence[str], key: str) -> Table:
    entries = {name: [find(tree, metric) for metric in metrics] for name, tree in trees.items()}
    rows = [(name, *(_cell(entry, key) for entry in found)) for name, found in entries.items()]
    caption = units([entry for found in entries.values() for entry in found])
    return Table((corner, *map(label, metrics)), tuple(rows), caption)


def _cell(entry: Mapping | float | None, key: str) -> str:
    if not isinstance(entry, Mapping):
        entry = {key: entry}
    value, low, high = (entry.get(name) for name in (key, "low", "high"))
    seeds = [entry[name] for name in ("seeds_low", "seeds_high") if entry.get(name) is not None]
    sign = "+" if key == "difference" else ""
    remark = f" ({entry['remark']})" if "remark" in entry else ""
    if value is None:
        return ABSENT + remark
    if low is None or high is None:
        # A difference alone would be read as a finding.
        return ABSENT if key == "difference" else _number(value, value) + remark
    reach = max(map(abs, (value, low, high, *seeds)))
    said = [_number(number, reach, sign) for number in (value, low, high, *seeds)]
    wider = f" ⟨{said[3]}, {said[4]}⟩" if seeds else ""
    return f"{said[0]} [{said[1]}, {said[2]}]{wider}{remark}"


def _number(value: float, reach: float, sign: str = "") -> str:
    """Two decimals suit percentages; what stays below 0.1 gets four."""
    return f"{value:{sign}.{2 if abs(reach) >= 0.1 else 4}f}"


def _escape_pipes(cells: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]
