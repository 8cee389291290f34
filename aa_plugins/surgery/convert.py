"""The conversion of one site in place, on the network or on a copy of it."""

from __future__ import annotations

from torch import nn

from aa_plugins.layers.strided import convert, make_dense
from aa_plugins.layers.unfused import keep_unfused
from aa_plugins.surgery.places import own
from aa_plugins.surgery.rows import Site


def convert_site(model: nn.Module, site: Site, layer: nn.Module, part: str = "") -> None:
    """Run the modules of `site` densely and let its host filter with `layer`.

    Args:
        part: the module whose forward pass was followed: those inside it are fused no more.
    """
    own(model, site.host)
    host = model.get_submodule(site.host)
    layer.train(host.training)
    for name in site.lowered:
        make_dense(model.get_submodule(name))
    convert(host, site.mixin, layer)
    for name in (site.host, *site.lowered):
        keep_unfused(model, name, part)
