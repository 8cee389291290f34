"""What the aliasing-specific loss finds where there is nothing to alias: its null range.

Networks that never subsample lose nothing to aliasing, but they pad, and see the borders of their
views. What is measured on them is the loss' error.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.semantic import SEMANTIC, SemanticConsistency
from aa_plugins.evaluation.views import extract

CLASSES = 11
NETWORKS = ("narrow", "wide", "head")


class ContextHead(nn.Module):
    """Like DeepLab's: dilated convolutions beside the mean of the whole view."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in (1, 6, 12)
        )
        self.whole = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        mean = self.whole(x.mean((2, 3), keepdim=True))
        return (sum(branch(x) for branch in self.branches) + mean).relu()


def stride_one(kind: str, seed: int) -> nn.Module:
    """A random network without any subsampling, padded with zeros: (N, 3, H, W) → (N, 11, H, W).

    Args:
        kind: "narrow" (its outputs see 17 pixels), "wide" (dilated: 67 pixels) or "head" (with a
            head that sees the whole view).
        seed: of the weights.
    """
    torch.manual_seed(seed)
    dilations = {"narrow": (1,) * 8, "wide": (1, 1, 2, 4, 8, 16, 1, 1), "head": (1, 1, 2)}[kind]
    layers: list[nn.Module] = []
    channels = 3
    for dilation in dilations:
        layers += [nn.Conv2d(channels, 12, 3, padding=dilation, dilation=dilation), nn.ReLU()]
        channels = 12
    if kind == "head":
        layers.append(ContextHead(channels))
    model = nn.Sequential(*layers, nn.Conv2d(channels, CLASSES, 1))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        else:
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


@torch.no_grad()
def null_losses(
    protocol: Protocol, images: Iterable[torch.Tensor], seeds: Iterable[int] = range(3)
) -> dict[str, float]:
    """The aliasing-specific loss of networks that have none, in percent, by kind and seed.

    Args:
        protocol: whose stride S is that of the networks it will be used for.
        images: (3, H, W) of the size that they are tested with, normalised.
        seeds: of each kind's networks.
    """
    images = list(images)
    scorer = SemanticConsistency(protocol, CLASSES)
    found = {}
    for kind in NETWORKS:
        for seed in seeds:
            model, records = stride_one(kind, seed), []
            with torch.no_grad():  # every class somewhere: centre its scores on the images
                scores = model(images[0][None])
                model[-1].bias -= scores.mean((0, 2, 3))
            for number, image in enumerate(images):
                plan = protocol.plan(*image.shape[-2:], number)
                views = (model(extract(image, view)[None])[0].softmax(0) for view in plan.views)
                records.append(scorer.score(plan, views))
            found[f"{kind} {seed}"] = SEMANTIC.summarise(records)["aliasing_loss"]["value"]
    return found
