"""Whether a filter stands behind the dense operation, or before the strided one as it was.

Behind it (Zhang, ICML 2019), a strided convolution runs at stride 1 and the filter subsamples: four
times the multiplications, and what the convolution adds is filtered, too. Before it (Vasconcelos et
al., ICCV 2021), the convolution keeps its stride and reads a filtered map: next to no cost, and
aliases of what the convolution itself makes stay.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from aa_plugins.layers.strided import FilterBefore
from aa_plugins.surgery.rows import Site

KINDS = ("conv", "shortcut", "stem")


def before(site: Site, model: nn.Module) -> Site:
    """The same place with its filter, at stride 1, before the strided convolution.

    Pools stay: a maximum has no filtered input to take, and a dense pool costs next to nothing. So
    do 1×1 convolutions that a filter precedes already, which reads and writes the very same then.
    """
    conv = model.get_submodule(site.name)
    if site.kind not in KINDS or not isinstance(conv, nn.Conv2d) or max(conv.kernel_size) == 1:
        return site
    if len(site.lowered) > 1:  # several modules share the filter of their block
        return site
    return replace(
        site,
        channels=conv.in_channels,
        stride=1,
        host=site.name,
        mixin=FilterBefore,
        dense=(),
        norm=None,
    )
