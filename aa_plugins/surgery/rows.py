"""What a search for sites finds: rows of data that the rules yield and `antialias` reads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from aa_plugins.layers.strided import FilterBefore, Filtered

# Every module of a network with its name; shared modules have their first name.
Names = dict[nn.Module, str]


@dataclass(frozen=True)
class Site:
    """One place where resolution is lowered.

    Attributes:
        name: the module that carries the stride.
        kind: "max_pool", "avg_pool", "conv", "shortcut", "merging", "stem" or "dilated".
        channels: of the map to be filtered.
        stride: pixels of that map between kept positions; 1 at "dilated" sites.
        host: the module that gets the filter.
        mixin: how `host` is converted.
        dense: modules whose stride becomes 1; where None, the one called `name`.
    """

    name: str
    kind: str
    channels: int
    stride: int
    host: str
    mixin: type[Filtered]
    dense: tuple[str, ...] | None = None

    @property
    def place(self) -> str:
        """Where the filter sits, in words."""
        side = "before" if self.mixin is FilterBefore else "after"
        return f"{side} {'it' if self.host == self.name else self.host}"


@dataclass(frozen=True)
class Skipped:
    """A place that lowers resolution, or blurs, and is left alone, with the reason."""

    name: str
    kind: str
    reason: str
