"""Every reduction that no rule converts is named, with the true reason."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aa_plugins import AAConfig, antialias

EVERYWHERE = AAConfig(init="identity", stem=True)


class Calls(nn.Module):
    """Reduces by what it is given, between two convolutions."""

    def __init__(self, reduce) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 1)
        self.reduce = reduce

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.reduce(self.before(x))


def space_to_depth(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return x.reshape(n, 4 * c, h // 2, w // 2)


def sampled(x: torch.Tensor) -> torch.Tensor:
    grid = torch.zeros(x.shape[0], x.shape[2] // 2, x.shape[3] // 2, 2, device=x.device)
    return F.grid_sample(x, grid, align_corners=False)


@pytest.mark.parametrize(
    ("reduce", "name", "reason"),
    [
        (nn.LPPool2d(2, 2), "reduce", "lp_pool2d"),
        (nn.FractionalMaxPool2d(3, output_ratio=0.5), "reduce", "fractional_max_pool2d"),
        (nn.Unfold(2, stride=2), "reduce", "unfold"),
        (nn.PixelUnshuffle(2), "reduce", "pixel_unshuffle"),
        (nn.AdaptiveAvgPool2d(8), "reduce", "adaptive_avg_pool2d 32×48 → 8×8"),
        (space_to_depth, "", "space-to-depth: 2×2 pixels become channels"),
        (sampled, "", "grid_sample"),
        (lambda x: x[..., ::2, ::2], "", "slicing with steps 32×48 → 16×24"),
        (lambda x: F.interpolate(x, scale_factor=0.5), "", "interpolate 32×48 → 16×24"),
        (lambda x: F.avg_pool2d(x, 2), "", "avg_pool2d 32×48 → 16×24"),
    ],
)
def test_it_is_named_with_its_reason(reduce, name, reason):
    report = antialias(Calls(reduce), EVERYWHERE, example=torch.zeros(1, 3, 32, 48), dry_run=True)
    assert not report.sites
    assert any(row.name == name and reason in row.reason for row in report.skipped), report


def test_a_network_of_three_dimensions_is_not_said_to_reduce_nothing():
    model = nn.Sequential(nn.Conv3d(3, 4, 3, stride=2, padding=1))
    report = antialias(model, EVERYWHERE, example=torch.zeros(1, 3, 8, 16, 16), dry_run=True)
    (row,) = report.skipped
    assert row.name == "0" and "only maps of two dimensions are filtered" in row.reason


def test_what_only_trims_a_border_is_no_reduction():
    model = nn.Sequential(nn.Conv2d(3, 4, 7), nn.MaxPool2d(3, 1), nn.Conv2d(4, 4, 3, 2, 1))
    report = antialias(model, EVERYWHERE, example=torch.zeros(1, 3, 32, 32), dry_run=True)
    assert [site.name for site in report.sites] == ["2"] and not report.skipped
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3))
    report = antialias(model, EVERYWHERE, example=torch.zeros(1, 3, 10, 10), dry_run=True)
    assert [site.name for site in report.sites] == ["0"] and not report.skipped  # 5×5 → 3×3


def test_a_strided_1x1_convolution_of_the_image_is_no_patch_embedding():
    model = nn.Sequential(nn.Conv2d(3, 4, 1, stride=2))
    report = antialias(model, AAConfig(filter="blur", stem=True))
    (site,) = report.sites
    assert (site.kind, site.place) == ("stem", "before it")
