"""What a page is made of: sections of plots, pictures and tables, each with words of its own."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import matplotlib
from matplotlib.figure import Figure

from aa_plugins.report.table import Table


@dataclass(frozen=True)
class Plot:
    """A figure drawn as vectors, with the numbers behind it.

    Args:
        title: what is shown, one line.
        figure: with axes, units and at most 5 inches wide, so that a phone can show its text.
        reading: a sentence on how to read it.
        table: the numbers.
    """

    title: str
    figure: Figure
    reading: str
    table: Table

    @property
    def svg(self) -> str:
        """Inline SVG that takes text and background from the page, in light and in dark."""
        return themed_svg(self.figure, f"{self.title}. {self.reading}")


@dataclass(frozen=True)
class Picture:
    """Pixels: an image, or one that moves.

    Args:
        data: an encoded PNG or WebP file.
        alt: what is to be seen, for those who can't.
        caption: how to read it.
        still: the same without motion, for readers who asked their system for less of it.
    """

    data: bytes
    alt: str
    caption: str
    still: bytes | None = None

    @property
    def url(self) -> str:
        return data_url(self.data)

    @property
    def still_url(self) -> str | None:
        return None if self.still is None else data_url(self.still)


@dataclass(frozen=True)
class Section:
    """A heading, a text, and plots, pictures and tables."""

    title: str
    text: str = ""
    items: Sequence[Plot | Picture | Table] = ()


@dataclass(frozen=True)
class Page:
    """A page that needs no other file, no network and no script.

    Args:
        title: one line.
        verdict: what was found, in one sentence with its interval.
        sections: in reading order.
        notes: how it came about (command, data, protocol, seeds), as JSON values.
    """

    title: str
    verdict: str
    sections: Sequence[Section]
    notes: Mapping[str, object] = field(default_factory=dict)


def png(figure: Figure) -> bytes:
    """A figure as a PNG file, for pictures that vectors can't hold."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def data_url(data: bytes) -> str:
    """The URL that holds an encoded image itself.

    Raises:
        ValueError: for anything but a PNG or a WebP file.
    """
    if data.startswith(b"\x89PNG"):
        kind = "png"
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "webp"
    else:
        raise ValueError(f"a picture begins with {data[:12]!r}: give a PNG or a WebP file")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def themed_svg(figure: Figure, alt: str) -> str:
    """A figure as an SVG element whose black is the page's ink and whose white is its paper."""
    buffer = io.StringIO()
    # Ids of several figures on one page must differ, and those of one figure must not change.
    salt = sha256(alt.encode()).hexdigest()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)  # implied where it stands inside HTML
    text = text.replace("xlink:href", "href")
    text = text.replace("#000000", "currentColor").replace("#ffffff", "var(--paper)")
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
