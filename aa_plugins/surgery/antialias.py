"""Conversion of a network in place."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from aa_plugins.config import FIXED, AAConfig
from aa_plugins.layers.channel_norm import norm_for
from aa_plugins.layers.kinds import build_filter
from aa_plugins.layers.strided import Filtered
from aa_plugins.surgery.activations import angular_activation, notes_on, smooth
from aa_plugins.surgery.convert import convert_site
from aa_plugins.surgery.follow import follow
from aa_plugins.surgery.guard import guard
from aa_plugins.surgery.placement import before
from aa_plugins.surgery.report import AntialiasReport, ConvertedSite
from aa_plugins.surgery.rows import Site, Skipped
from aa_plugins.surgery.sites import find_sites
from aa_plugins.surgery.verify import verify as compare

# Classes that hold a network whose forward pass is settled, and what was done to it.
SETTLED = {
    "OptimizedModule": "compiled",
    "ScriptModule": "compiled by TorchScript",
    "FSDPModule": "sharded",
    "FullyShardedDataParallel": "sharded",
}

CONVOLUTIONS = ("conv", "shortcut", "stem", "dilated")
SMALL = 3  # taps an axis, of kernels="small"

# Packages whose trainer builds a network anew, by the name of the package.
REBUILT = {
    "ultralytics": "YOLO.train() builds the network anew from its yaml, without filters: give it a "
    "trainer whose get_model() calls antialias() (docs/compatibility.md)",
}


def antialias(
    model: nn.Module,
    config: AAConfig | dict[str, Any] | None = None,
    *,
    example: Any = None,
    dry_run: bool = False,
    verify: bool = True,
) -> AntialiasReport:
    """Put a low-pass filter before every subsampling of `model`, in place.

    Names of parameters and buffers stay as they are; a predicted filter adds keys below
    `prefilter` or `postfilter`, the fixed blur adds none. Sites are found by one forward pass on
    fake tensors, or a real one where the forward pass looks at values; of a network that can't be
    followed as a whole, such as a detector, the part that can be is converted, its backbone.

    The conversion proves itself before anything changes: each site, run densely and subsampled,
    is compared with the module it was, and the whole network likewise, on a real input. A site
    that doesn't hold is left alone and reported; `report.notes` say what could not be seen. All
    of it happens on copies. A converted network whose filters another tool then loses (a norm
    folded, a module exchanged) raises at its next forward pass. Blocks that timm could fuse for
    deployment (`reparameterize_model`) are fused no more where they hold a filter.

    Args:
        model: any network from images (N, C, H, W) to whatever; load its weights first.
        config: which filter, and at which sites.
        example: what the network takes: a tensor, a tuple of positional or a dict of keyword
            arguments; needed only where neither the network's own configuration nor a usual size
            says. Where its values are all equal, only its shape, dtype and device count.
        dry_run: report what would be done, and leave the network as it is.
        verify: compare; costs two forward passes on a small input.

    Raises:
        ValueError: where there is nothing to convert, a name pattern matches no site, the forward
            pass fails on every likely input, the model was converted, compiled or sharded before,
            or filter="aps" meets a strided shortcut.
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
    for cls in type(model).__mro__:
        if cls.__name__ in SETTLED:
            raise ValueError(
                f"{type(model).__name__} is {SETTLED[cls.__name__]} already: call antialias() "
                "first, on the plain network"
            )
    followed = follow(model, example, may_repeat=config.filter in FIXED)
    sites, denied = find_sites(followed)
    _check_patterns(config, sites)
    _check_phases(config, sites)
    report = AntialiasReport(config, skipped=denied)
    chosen = []
    for site in sites:
        reason = _unwanted(model, site, config) or _adapted(model, site, config)
        if reason is None:
            chosen.append(before(site, model) if config.placement == "pre" else site)
        else:
            report.skipped.append(Skipped(site.name, site.kind, reason))
    if followed.part:
        report.notes.append(f"only {followed.part} could be followed, and is converted")
    if verify and chosen:
        verdict = compare(followed, chosen)
        report.notes.extend(verdict.notes)
        report.skipped.extend(
            Skipped(site.name, site.kind, verdict.failed[site.name])
            for site in chosen
            if site.name in verdict.failed
        )
        chosen = verdict.sites
    norm = norm_for(model)
    if config.activation != "same":
        paths = {site.name: angular_activation(site, followed) for site in chosen}
        report.notes.extend(notes_on(paths, config.activation))
        for path in set() if dry_run else {*paths.values()} - {None}:
            smooth(model, path, config.activation)
    for site in chosen:
        device = torch.device("meta") if dry_run else site.device
        layer = build_filter(config, site.channels, site.stride, device, site.dtype, norm)
        report.sites.append(_row(site, layer, config))
        if not dry_run:
            convert_site(model, site, layer, followed.part)
    if chosen and not config.keeps_function:
        report.notes.append(
            f"{config.start}: a trained network computes something else until it is trained "
            'further, which costs accuracy; filter="adaptive" or "bank" with init="identity" '
            "starts as the network itself"
        )
    rebuilt = {cls.__module__.partition(".")[0] for cls in type(model).__mro__} & REBUILT.keys()
    report.notes.extend(REBUILT[package] for package in sorted(rebuilt))
    if chosen and not dry_run:
        guard(model, chosen)
    if not report.sites and not dry_run:
        reasons = "; ".join(f"{s.name}: {s.reason}" for s in report.skipped)
        raise ValueError(
            f"nothing to convert in {type(model).__name__}"
            f" ({reasons or 'it never lowers resolution'}): check the site options of AAConfig"
        )
    return report


def _unwanted(model: nn.Module, site: Site, config: AAConfig) -> str | None:
    """Why this configuration leaves a site alone, or None."""
    if not getattr(config, site.kind):
        return f"{site.kind}=False"
    size = getattr(model.get_submodule(site.name), "kernel_size", 1)
    widest = size if isinstance(size, int) else max(size)
    if config.kernels == "small" and site.kind in CONVOLUTIONS and widest > SMALL:
        return f'kernels="small": {widest} taps an axis can make a low-pass filter themselves'
    if config.include and not _matches(site, config.include):
        return "no pattern of include matches"
    return "excluded by name" if _matches(site, config.exclude) else None


def _adapted(model: nn.Module, site: Site, config: AAConfig) -> str | None:
    """Why a site inside an adapter of peft is left alone, or None.

    Merging adds the weights of both of its paths, which is right where both have the same filter.
    """
    parts = site.name.split(".")
    parents = (model.get_submodule(".".join(parts[:depth])) for depth in range(1, len(parts)))
    adapted = any(
        cls.__name__ == "BaseTunerLayer" for parent in parents for cls in type(parent).__mro__
    )
    if config.filter in FIXED or not adapted:
        return None
    return "inside an adapter, whose paths would get two filters: merge it before, or add it after"


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


def _check_phases(config: AAConfig, sites: list[Site]) -> None:
    """Raise ValueError where two paths that are added would choose positions each for itself."""
    shortcuts = [site.name for site in sites if site.kind == "shortcut"]
    if config.filter == "aps" and shortcuts:
        raise ValueError(
            f'filter="aps" chooses positions by what a map holds, and the shortcut {shortcuts[0]} '
            "would choose others than its main path: use it in networks without strided "
            'shortcuts, or filter="blur"'
        )


def _row(site: Site, layer: nn.Module, config: AAConfig) -> ConvertedSite:
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
