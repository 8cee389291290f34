"""Where nothing aliases, the aliasing-specific loss finds nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from aa_plugins.evaluation.null import null_losses, stride_one
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.stride import total_stride

# Textures of every scale, at the size of a road scene.
GENERATOR = torch.Generator().manual_seed(0)
IMAGE = sum(
    F.interpolate(
        torch.randn(1, 3, 192 // s, 256 // s, generator=GENERATOR), (192, 256), mode="bilinear"
    )
    for s in (1, 4, 16, 64)
)[0]


def test_networks_without_subsampling_have_a_stride_of_one():
    for kind in ("narrow", "wide", "head"):
        model = stride_one(kind, 0)
        assert model(IMAGE[None]).shape == (1, 11, 192, 256)
        assert total_stride(model) == 1


def test_they_lose_nothing_at_the_margin_from_borders():
    losses = null_losses(Protocol(stride=16), [IMAGE], seeds=[0])
    assert set(losses) == {"narrow 0", "wide 0", "head 0"}
    assert all(abs(loss) < 0.1 for loss in losses.values()), losses


@pytest.mark.slow
def test_without_the_margin_borders_are_taken_for_aliasing():
    losses = null_losses(Protocol(stride=16, margin=0), [IMAGE], seeds=range(3))
    assert max(map(abs, losses.values())) > 0.1, losses
    losses = null_losses(Protocol(stride=16), [IMAGE], seeds=range(3))
    assert max(map(abs, losses.values())) < 0.15, losses
