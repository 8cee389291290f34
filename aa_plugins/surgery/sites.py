"""Where a network lowers its resolution: every site, and every place left alone with the reason."""

from __future__ import annotations

import torch
from torch import nn

from aa_plugins.surgery.families import family_sites
from aa_plugins.surgery.generic import generic_sites, out_of_reach
from aa_plugins.surgery.rows import Site, Skipped
from aa_plugins.surgery.trace import Trace, trace_forward


def find_sites(
    model: nn.Module, example: torch.Tensor | None = None
) -> tuple[list[Site], list[Skipped]]:
    """Every site of `model` in module order, and what must not be touched.

    Args:
        model: stays as it is; its forward pass is run once on fake tensors.
        example: (N, C, H, W), an input that the network takes; likely ones are tried if missing.

    Raises:
        ValueError: where the forward pass fails on every likely input.
    """
    trace = _trace(model, example)
    names = {module: name for name, module in model.named_modules()}
    found: dict[str, Site | Skipped] = {}
    for rule in (family_sites, generic_sites, out_of_reach):
        for row in rule(names, trace):
            found.setdefault(row.name, _usable(row, trace) if isinstance(row, Site) else row)
    order = {name: index for index, name in enumerate(names.values())}
    rows = sorted(found.values(), key=lambda row: order[row.name])
    return (
        [row for row in rows if isinstance(row, Site)],
        [row for row in rows if isinstance(row, Skipped)],
    )


def _usable(site: Site, trace: Trace) -> Site | Skipped:
    """A site that the forward pass reaches exactly once, or the reason against it."""
    for name in (site.name, site.host):
        reason = trace.why_not_once(name)
        if reason is not None:
            return Skipped(site.name, site.kind, reason)
    return site


def _trace(model: nn.Module, example: torch.Tensor | None) -> Trace:
    """The forward pass on `example`, or on the first likely input that the network takes."""
    if example is not None:
        return trace_forward(model, example)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    errors = []
    for shape in _likely_shapes(model):
        try:
            return trace_forward(model, like.new_empty(1, *shape, device=like.device))
        except Exception as error:  # any error of any network: the next shape may fit
            errors.append(f"{shape}: {str(error).splitlines()[0] if str(error) else repr(error)}")
    raise ValueError(
        f"the forward pass of {type(model).__name__} failed on every likely input "
        f"({'; '.join(errors)}): call antialias(model, config, example=<an input that it takes>)"
    )


def _likely_shapes(model: nn.Module) -> list[tuple[int, int, int]]:
    """(C, H, W) that the model says it takes, then common ones."""
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    channels, *size = config.get("input_size", (3, 224, 224))
    first = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), channels)
    fixed = getattr(getattr(model, "patch_embed", None), "img_size", None)
    sizes = [tuple(fixed)] if isinstance(fixed, (tuple, list)) else []
    sizes += [tuple(size), (224, 224), (256, 256)]
    shapes = [(count, *size) for count in (channels, first, 3) for size in sizes]
    return list(dict.fromkeys(shapes))
