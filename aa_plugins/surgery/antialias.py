"""Conversion of a network in place."""

from __future__ import annotations

from fnmatch import fnmatchcase
from math import gcd
from typing import Any

import torch
from torch import nn

from aa_plugins.config import AAConfig
from aa_plugins.layers import AdaptiveBlurPool2d, BlurPool2d, FilterBankPool2d
from aa_plugins.layers.strided import Filtered, convert, make_dense
from aa_plugins.layers.unfused import keep_unfused
from aa_plugins.surgery.report import AntialiasReport, ConvertedSite
from aa_plugins.surgery.rows import Site, Skipped
from aa_plugins.surgery.sites import find_sites


def antialias(
    model: nn.Module,
    config: AAConfig | dict[str, Any] | None = None,
    *,
    example: torch.Tensor | None = None,
    dry_run: bool = False,
) -> AntialiasReport:
    """Put a low-pass filter before every subsampling of `model`, in place.

    Names of parameters and buffers stay as they are; a predicted filter adds keys below
    `prefilter` or `postfilter`, the fixed blur adds none. Sites are found by one forward pass on
    fake tensors, which computes nothing and leaves the network as it is. Blocks that timm could
    fuse for deployment (`reparameterize_model`) are fused no more where they hold a filter.

    Args:
        model: any network from images (N, C, H, W) to whatever; load its weights first.
        config: which filter, and at which sites.
        example: an input of the network, of which only shape, dtype and device count; needed only
            where neither the network's own configuration nor a usual size says what it takes.
        dry_run: report what would be done, and leave the network as it is.

    Raises:
        ValueError: where there is nothing to convert, a name pattern matches no site, the forward
            pass fails on every likely input, or the model was converted before.
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
    sites, denied = find_sites(model, example)
    _check_patterns(config, sites)
    report = AntialiasReport(config, skipped=denied)
    for site in sites:
        reason = _unwanted(site, config)
        if reason is None:
            report.sites.append(_convert_site(model, site, config, dry_run))
        else:
            report.skipped.append(Skipped(site.name, site.kind, reason))
    if not report.sites and not dry_run:
        reasons = "; ".join(f"{s.name}: {s.reason}" for s in report.skipped)
        raise ValueError(
            f"nothing to convert in {type(model).__name__}"
            f" ({reasons or 'it never lowers resolution'}): check the site options of AAConfig"
        )
    return report


def _unwanted(site: Site, config: AAConfig) -> str | None:
    """Why this configuration leaves a site alone, or None."""
    if not getattr(config, site.kind):
        return f"{site.kind}=False"
    if config.include and not _matches(site, config.include):
        return "no pattern of include matches"
    return "excluded by name" if _matches(site, config.exclude) else None


def _matches(site: Site, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(site.name, pattern) for pattern in patterns)


def _check_patterns(config: AAConfig, sites: list[Site]) -> None:
    """Raise ValueError for a pattern that matches no site, which is most likely a slip."""
    for pattern in (*config.include, *config.exclude):
        if not any(_matches(site, (pattern,)) for site in sites):
            raise ValueError(
                f"the pattern {pattern!r} matches no site: choose among "
                f"{', '.join(site.name for site in sites) or 'none'}"
            )


def _convert_site(model: nn.Module, site: Site, config: AAConfig, dry_run: bool) -> ConvertedSite:
    host = model.get_submodule(site.host)
    like = torch.empty(0, device="meta") if dry_run else next(model.parameters())
    layer = build_filter(config, site.channels, site.stride, like)
    if not dry_run:
        layer.train(host.training)
        dense = (site.name,) if site.dense is None else site.dense
        for name in dense:
            make_dense(model.get_submodule(name))
        convert(host, site.mixin, layer)
        for name in (site.host, *dense):
            keep_unfused(model, name)
    return ConvertedSite(
        name=site.name,
        kind=site.kind,
        channels=site.channels,
        groups=getattr(layer, "groups", site.channels),
        stride=site.stride,
        filter=config.filter,
        parameters=sum(p.numel() for p in layer.parameters()),
        place=site.place,
    )


def build_filter(
    config: AAConfig, channels: int, stride: int, like: torch.Tensor | None = None
) -> nn.Module:
    """The filter that `config` asks for, on the device and in the dtype of `like`."""
    factory = {} if like is None else {"device": like.device, "dtype": like.dtype}
    shared = {"stride": stride, "pad_mode": config.pad_mode, **factory}
    if config.filter == "blur":
        return BlurPool2d(channels, config.kernel_size, **shared)
    groups = gcd(config.groups, channels)
    predicted = {"groups": groups, "init": config.init, "predictor": config.predictor, **shared}
    predicted["predictor_input"] = config.predictor_input
    if config.filter == "bank":
        taps = config.taps or tuple(range(1, config.kernel_size + 1, 2))
        return FilterBankPool2d(channels, taps, **predicted)
    return AdaptiveBlurPool2d(channels, config.kernel_size, normalize=config.normalize, **predicted)
