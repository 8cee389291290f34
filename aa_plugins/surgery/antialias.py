"""Conversion of a network in place, and the report of what was done."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import gcd
from typing import Any

import torch
from torch import nn

from aa_plugins.config import AAConfig
from aa_plugins.layers import AdaptiveBlurPool2d, BlurPool2d, FilterBankPool2d
from aa_plugins.layers.strided import Filtered, convert, make_dense
from aa_plugins.surgery.rows import Site, Skipped
from aa_plugins.surgery.sites import find_sites


@dataclass(frozen=True)
class ConvertedSite:
    """One row of the report: a site that has a filter now."""

    name: str
    kind: str
    channels: int
    groups: int
    stride: int
    filter: str
    parameters: int


@dataclass(frozen=True)
class AntialiasReport:
    """What `antialias` did: one row a converted site, and what it left alone and why."""

    config: AAConfig
    sites: list[ConvertedSite] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        header = ("site", "kind", "channels", "groups", "stride", "action", "parameters")
        rows = [header]
        for s in self.sites:
            action = f"{s.filter} filter"
            cells = (s.name, s.kind, s.channels, s.groups, s.stride, action, s.parameters)
            rows.append(tuple(str(cell) for cell in cells))
        for s in self.skipped:
            rows.append((s.name, s.kind, "", "", "", f"left alone: {s.reason}", ""))
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(lines)


def antialias(model: nn.Module, config: AAConfig | dict[str, Any] | None = None) -> AntialiasReport:
    """Put a low-pass filter before every subsampling of `model`, in place.

    Names of parameters and buffers stay as they are; a predicted filter adds keys below
    `prefilter` or `postfilter`, the fixed blur adds none.

    Args:
        model: any timm, torchvision or mmseg network; load its weights first.
        config: which filter, and at which kinds of sites.

    Raises:
        ValueError: where there is nothing to convert, or the model was converted before.
    """
    config = AAConfig.of(config)
    converted = next((n for n, m in model.named_modules() if isinstance(m, Filtered)), None)
    if converted is not None:
        raise ValueError(
            f"{type(model).__name__} is anti-aliased already (at {converted}): build the plain "
            "model again and convert that once"
        )
    if config.filter == "none":
        return AntialiasReport(config)
    report = AntialiasReport(config)
    for site, reason in _chosen_sites(model, config, report.skipped):
        if reason is None:
            report.sites.append(_convert_site(model, site, config))
        else:
            report.skipped.append(Skipped(site.name, site.kind, reason))
    if not report.sites:
        reasons = "; ".join(f"{s.name}: {s.reason}" for s in report.skipped)
        raise ValueError(
            f"nothing to convert in {type(model).__name__}"
            f" ({reasons or 'it never lowers resolution'}): check the site options of AAConfig"
        )
    return report


def _chosen_sites(
    model: nn.Module, config: AAConfig, skipped: list[Skipped]
) -> list[tuple[Site, str | None]]:
    """Sites with None, or with the reason why this configuration leaves them alone."""
    sites, denied = find_sites(model)
    skipped.extend(denied)
    off = {s.kind: f"{s.kind}=False" for s in sites if not getattr(config, s.kind)}
    return [(site, off.get(site.kind)) for site in sites]


def _convert_site(model: nn.Module, site: Site, config: AAConfig) -> ConvertedSite:
    host = model.get_submodule(site.host)
    layer = build_filter(config, site.channels, site.stride, like=next(model.parameters()))
    layer.train(host.training)
    make_dense(model.get_submodule(site.name))
    convert(host, site.mixin, layer)
    return ConvertedSite(
        name=site.name,
        kind=site.kind,
        channels=site.channels,
        groups=getattr(layer, "groups", site.channels),
        stride=site.stride,
        filter=config.filter,
        parameters=sum(p.numel() for p in layer.parameters()),
    )


def build_filter(
    config: AAConfig, channels: int, stride: int, like: torch.Tensor | None = None
) -> nn.Module:
    """The filter that `config` asks for, on the device and in the dtype of `like`."""
    factory = {} if like is None else {"device": like.device, "dtype": like.dtype}
    shared = {"stride": stride, "pad_mode": config.pad_mode, **factory}
    if config.filter == "blur":
        return BlurPool2d(channels, config.kernel_size, **shared)
    predicted = {"groups": gcd(config.groups, channels), "init": config.init, **shared}
    if config.filter == "bank":
        taps = tuple(range(1, config.kernel_size + 1, 2))
        return FilterBankPool2d(channels, taps, **predicted)
    return AdaptiveBlurPool2d(channels, config.kernel_size, normalize=config.normalize, **predicted)
