"""The activation in front of a filter, and a smooth one in its place."""

from __future__ import annotations

from torch import nn

from aa_plugins.layers.strided import FilterAfter, FilterBefore
from aa_plugins.surgery.follow import Followed
from aa_plugins.surgery.places import Modules, calls_at, own, own_path
from aa_plugins.surgery.rows import Site
from aa_plugins.surgery.trace import Trace

SMOOTH = {"silu": nn.SiLU, "softplus": nn.Softplus}
ANGULAR = (nn.ReLU, nn.ReLU6)
KINDS = ("conv", "stem", "dilated")  # pools and shortcuts read what others read, too


def angular_activation(site: Site, followed: Followed) -> str | None:
    """The path of the ReLU, one of its own, whose output the filter of `site` alone reads."""
    modules = dict(followed.model.named_modules())
    path = _before_filter(site, modules, followed.trace)
    if path is None:
        return None
    return path if isinstance(followed.model.get_submodule(path), ANGULAR) else None


def smooth(model: nn.Module, path: str, activation: str) -> None:
    """Put a smooth activation in the place of another one, in place."""
    own(model, path)
    parent, _, attribute = path.rpartition(".")
    old = model.get_submodule(path)
    setattr(model.get_submodule(parent), attribute, SMOOTH[activation]().train(old.training))


def notes_on(paths: dict[str, str | None], activation: str) -> list[str]:
    """What a report says of the activations in front of sites, by the names of the sites."""
    found = sorted({path for path in paths.values() if path is not None})
    kept = [name for name, path in paths.items() if path is None]
    notes = [f"{activation} in place of ReLU: {', '.join(found) or 'nowhere'}"]
    if kept:
        notes.append(f"no ReLU of its own in front of the filter, left alone: {', '.join(kept)}")
    return notes


def _before_filter(site: Site, modules: Modules, trace: Trace) -> str | None:
    if site.kind not in KINDS:
        return None
    if site.mixin is FilterAfter:
        return site.host if site.host != site.name else None
    if site.mixin is not FilterBefore:
        return None
    hosts = calls_at(site.host, modules, trace)
    read = hosts[0].inputs[0]
    makers = [
        call
        for name, calls in trace.calls.items()
        for call in calls
        if read in call.outputs and isinstance(modules.get(name), ANGULAR)
    ]
    alone = all(hosts[0] in operation.scope for operation in trace.readers[read])
    if len(makers) != 1 or not alone or read in trace.results:
        return None
    return own_path(makers[0], len(hosts), modules, trace)
