"""Where a network lowers its resolution: every site, and every place left alone with the reason."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from aa_plugins.layers.strided import FilterAfter, FilterBefore
from aa_plugins.surgery.families import family_sites
from aa_plugins.surgery.follow import Followed
from aa_plugins.surgery.generic import generic_sites
from aa_plugins.surgery.places import calls_at, norm_after
from aa_plugins.surgery.reductions import function_reductions, unexplained
from aa_plugins.surgery.rows import Site, Skipped
from aa_plugins.surgery.trace import Call, Trace


def find_sites(followed: Followed) -> tuple[list[Site], list[Skipped]]:
    """Every site of a network in module order, and what must not be touched."""
    trace, model = followed.trace, followed.model
    inside = followed.part and f"{followed.part}."
    names = {
        module: name
        for name, module in model.named_modules()
        if name == followed.part or name.startswith(inside)
    }
    modules = {name: module for module, name in names.items()}
    found: dict[str, Site | Skipped] = {row.name: row for row in followed.outside}
    for rule in (family_sites, generic_sites, function_reductions):
        for row in rule(names, trace):
            if isinstance(row, Site):
                site = row
                row = _usable(site, modules, trace)
                if row is None and rule is generic_sites:
                    row = _usable(replace(site, host=site.name), modules, trace)
            if row is not None:
                found.setdefault(row.name, row)
    for row in unexplained(names, trace, found):
        found.setdefault(row.name, row)
    order = {name: index for index, (name, _) in enumerate(model.named_modules())}
    rows = sorted(found.values(), key=lambda row: order[row.name])
    return (
        [row for row in rows if isinstance(row, Site)],
        [row for row in rows if isinstance(row, Skipped)],
    )


def _usable(site: Site, modules: dict[str, nn.Module], trace: Trace) -> Site | Skipped | None:
    """A site that the forward pass reaches, with what it computes; or the reason against it.

    None where a hook or an attribute would see the map before it is filtered: what a family's rule
    has no place for, the generic one has, and that filters right behind the convolution then.
    """
    hosts = calls_at(site.host, modules, trace)
    for calls in (trace.calls.get(site.name, []), hosts):
        reason = trace.why_not(len(calls))
        if reason is not None:
            return Skipped(site.name, site.kind, reason)
    if site.host not in (site.name, *_parents(site.name)) and _is_seen(site, hosts, trace):
        return None
    call = trace.calls[site.name][0]
    after_conv = site.mixin is FilterAfter and site.host == site.name
    norm = norm_after(site.name, modules, trace) if after_conv else None
    return replace(site, dtype=call.dtype, device=call.device, norm=norm)


def _is_seen(site: Site, hosts: list[Call], trace: Trace) -> bool:
    """Whether anything but the host gets a map on its way from the dense module to the filter."""
    before = site.mixin is FilterBefore
    end = {value for call in hosts for value in (call.inputs if before else call.outputs)}
    way = [value for name in site.lowered for call in trace.calls[name] for value in call.outputs]
    seen = set()
    while way:
        value = way.pop()
        if value in seen or (value in end and not before):
            continue
        seen.add(value)
        if value not in end:
            way += [v for operation in trace.readers[value] for v in operation.outputs]
    return not seen.isdisjoint(trace.results)


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts))]
