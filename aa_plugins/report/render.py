"""A page to HTML, by the template beside this file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined

from aa_plugins.report.elements import Page


def html(page: Page) -> str:
    """One file that needs no other, no network and no script."""
    return _environment().get_template("page.html.j2").render(page=page)


def inline(value: object) -> str:
    """A note as one line: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=plain)


def plain(value: object) -> object:
    """For `json.dumps`, what it doesn't know itself."""
    if hasattr(value, "tolist"):  # numbers and arrays of NumPy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} can't be written as JSON: {value!r}")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("aa_plugins.report", ""), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["inline"] = inline
    environment.filters["groups"] = _groups
    return environment


def _groups(items: Iterable[object]) -> list[list[object]]:
    """Neighbours of one kind together: plots share a grid."""
    return [list(group) for _, group in groupby(items, type)]
