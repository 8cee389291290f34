"""Entries of a config: dicts with a `type`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def type_name(entry: Mapping[str, Any]) -> str:
    """The name in an entry's `type`, which new-style configs hold as a class."""
    kind = entry["type"]
    return (kind if isinstance(kind, str) else kind.__name__).rsplit(".")[-1]


def dicts_in(value: Any) -> Iterator[Any]:
    """Every dict in a config's part, itself included."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for child in value:
            yield from dicts_in(child)
