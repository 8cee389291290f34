"""What `antialias` did, as data and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from aa_plugins.config import AAConfig
from aa_plugins.surgery.rows import Skipped

COLUMNS = ("site", "kind", "channels", "groups", "stride", "action", "why", "parameters")


@dataclass(frozen=True)
class ConvertedSite:
    """One row of the report: a site that has a filter now.

    Attributes:
        name: the module that carried the stride.
        channels, stride: of the filtered map.
        groups: channel groups with a filter of their own: the largest divisor
            of the channels that isn't above `config.groups`.
        place: the module before or after which the filter sits.
        parameters: that the filter added.
    """

    name: str
    kind: str
    channels: int
    groups: int
    stride: int
    filter: str
    parameters: int
    place: str


@dataclass(frozen=True)
class AntialiasReport:
    """What `antialias` did: one row a converted site, and what it left alone and why.

    Attributes:
        notes: how the conversion was verified, and what could not be seen.
    """

    config: AAConfig
    sites: list[ConvertedSite] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [COLUMNS, *map(self._converted_row, self.sites), *map(_skipped_row, self.skipped)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows)
        return "\n".join([*(line.rstrip() for line in lines), *self.notes])

    def _converted_row(self, site: ConvertedSite) -> tuple[str, ...]:
        why = f"filters {site.place}"
        if site.parameters and site.groups != self.config.groups:
            why += f"; {self.config.groups} groups don't divide {site.channels} channels"
        numbers = (site.channels, site.groups, site.stride)
        action = f"{site.filter} filter"
        return (site.name, site.kind, *map(str, numbers), action, why, str(site.parameters))


def _skipped_row(row: Skipped) -> tuple[str, ...]:
    return (row.name or "(forward)", row.kind, "", "", "", "left alone", row.reason, "")
