"""Blocks that hold a filter stay as they are when a network is fused for deployment."""

from __future__ import annotations

from torch import nn

from aa_plugins.layers.in_place import InPlace, mix_in

# By which timm's `reparameterize_model` merges a block's branches and norms into one convolution.
FUSIONS = ("fuse", "reparameterize", "switch_to_deploy")


def _hidden(block: nn.Module) -> None:
    raise AttributeError("fusing a block that holds a filter would lose that")


class Unfused(InPlace):
    """Hides the methods that fuse a block: the filter would go, and the stride come back."""

    fuse = property(_hidden)
    reparameterize = property(_hidden)
    switch_to_deploy = property(_hidden)


def keep_unfused(model: nn.Module, name: str, root: str = "") -> None:
    """Hide how the module called `name` and those around it, up to `root`, are fused.

    A whole network that fuses the convolutions and norms below it keeps its blocks.
    """
    while name != root:
        module = model.get_submodule(name)
        if any(hasattr(module, method) for method in FUSIONS):
            mix_in(module, Unfused)
        name = name.rpartition(".")[0]
