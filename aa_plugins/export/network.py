"""Exporting a network to a file, and checking that file against torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from aa_plugins.diagnostics.equivalence import relative_difference
from aa_plugins.export.filters import exportable
from aa_plugins.export.formats import Runs, format_of
from aa_plugins.export.same_padding import followable

Size = tuple[int, int]

SIZES_CHECKED = 3
TOLERANCE = 1e-3  # of the largest value: what sums in another order may differ by, in deep networks


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: of the file.
        nodes: operators of the graph, constants left out.
        size: of the file in bytes, with what lies beside it.
        differences: the largest difference from torch, relative to the largest value, by the height
            and width of the input in pixels; of one, two and three images, if their number is free.
    """

    path: Path
    nodes: int
    size: int
    differences: dict[Size, float]

    def __str__(self) -> str:
        sizes = ", ".join(f"{h}×{w}" for h, w in self.differences)
        if len(self.differences) == 1:
            sizes += ", the only size that it takes"
        return (
            f"{self.path}: {self.nodes} nodes, {self.size / 1e6:.1f} MB; checked against torch at "
            f"{sizes}: differs by {max(self.differences.values()):.1e} of the largest value at most"
        )


def export(
    model: nn.Module, path: str | Path, example: torch.Tensor, fixed: bool = False
) -> Exported:
    """Write a network, converted or not, to an .onnx, an .xml (OpenVINO) or a .pt2 (torch.export).

    Norms of predicted filters are folded, filters become few standard operators (see
    `exportable`), and number, height and width of images stay free. The file is run and compared
    with torch at three sizes, odd ones where the network takes them.

    Args:
        model: (N, 3, H, W) → tensors, nested in any way; it stays as it is.
        path: what to write; its ending is the format.
        example: (N, 3, H, W), as the network takes it.
        fixed: for this size alone.

    Raises:
        ValueError: for an unknown ending, a network that can't be exported, or a file that computes
            something else; none is left behind then.
        ModuleNotFoundError: where a package that the format needs isn't installed.
    """
    path = Path(path)
    kind = format_of(path)
    form = exportable(model).cpu()
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(example.shape, generator=generator)
    # Two images, as exporters take a dimension of one for a fixed one.
    shown = example if fixed else example[:1].expand(2, -1, -1, -1).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with followable():
            kind.write(form, shown, path, not fixed)
    except Exception as error:  # any error of any exporter, in its last words
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        remedy = (
            "export a size of its own with fixed=True (--fixed)"
            if not fixed
            else ("its forward pass must be traced by torch.export")
        )
        raise ValueError(
            f"{type(model).__name__} can't be exported to {path.suffix}: "
            f"{lines[0] if lines else type(error).__name__}; {remedy}"
        ) from error
    differences = _differences(form, kind.open(path), shown, fixed)
    wrong = {size: found for size, found in differences.items() if not found < TOLERANCE}
    files = [path, *([path.with_suffix(".bin")] if path.suffix == ".xml" else [])]
    if wrong:
        for file in files:
            file.unlink()
        (height, width), found = max(wrong.items(), key=lambda row: row[1])
        raise ValueError(
            f"{path} computes something else than torch: {found:.1e} of the largest value at "
            f"{height}×{width}; nothing is kept, export that size alone with fixed=True (--fixed)"
        )
    return Exported(path, kind.nodes(path), sum(f.stat().st_size for f in files), differences)


@torch.no_grad()
def _differences(
    form: nn.Module, run: Runs, example: torch.Tensor, fixed: bool
) -> dict[Size, float]:
    """By size; infinite where the file doesn't run."""
    generator = torch.Generator().manual_seed(1)
    found: dict[Size, float] = {}
    for size in [tuple(example.shape[-2:])] if fixed else _sizes(*example.shape[-2:]):
        images = len(example) if fixed else len(found) + 1
        x = torch.randn(images, example.shape[1], *size, generator=generator)
        try:
            expected = [leaf for leaf in tree_leaves(form(x)) if torch.is_tensor(leaf)]
        except Exception:  # a size that the network itself doesn't take
            continue
        try:
            found[size] = relative_difference(run(x), expected)
        except Exception:  # a size that the file doesn't take
            found[size] = float("inf")
        if len(found) == SIZES_CHECKED:
            break
    return found


def _sizes(height: int, width: int) -> Iterator[Size]:
    """The example's own, odd ones, then such as networks take that halve it five times."""
    yield height, width
    yield height | 1, width | 1
    yield height * 3 // 4 | 1, width * 5 // 4 | 1
    yield height + 32, width
    yield height, width + 64
