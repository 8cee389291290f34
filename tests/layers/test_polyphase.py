"""AdaptivePolyphasePool2d against a loop over grids, and the invariance that it is made for."""

import pytest
import torch
from torch import nn

from aa_plugins import AAConfig, BlurPool2d, antialias
from aa_plugins.layers import AdaptivePolyphasePool2d


@pytest.mark.parametrize("size", [(8, 12), (9, 7), (5, 4)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_keeps_of_each_image_the_grid_of_largest_norm(size, stride):
    x = torch.randn(3, 4, *size)
    height, width = (-(-s // stride) for s in size)
    expected = []
    for image in x:
        rows = [[(i + stride * n) % size[0] for n in range(height)] for i in range(stride)]
        columns = [[(j + stride * n) % size[1] for n in range(width)] for j in range(stride)]
        grids = [image[:, row][:, :, column] for row in rows for column in columns]
        expected.append(max(grids, key=lambda grid: grid.square().sum()))
    found = AdaptivePolyphasePool2d(4, 1, stride)(x)
    torch.testing.assert_close(found, torch.stack(expected))


def test_blurs_first():
    x = torch.randn(1, 2, 8, 8)
    smooth = BlurPool2d(2, 3, 1)(x)
    expected = AdaptivePolyphasePool2d(2, 1)(smooth)
    torch.testing.assert_close(AdaptivePolyphasePool2d(2, 3)(x), expected)


def classifier() -> nn.Sequential:
    circular = {"kernel_size": 3, "padding": 1, "padding_mode": "circular", "dtype": torch.float64}
    layers = []
    for inputs, outputs in ((3, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(inputs, outputs, stride=2, **circular), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 7, dtype=torch.float64)
    )


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_circular_classifier_answers_the_same_for_every_circular_shift(kernel_size):
    torch.manual_seed(0)
    model = classifier().eval()
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    shifts = [(i, j) for i in range(0, 17) for j in (0, 1, 5, 11)]

    @torch.no_grad()
    def departure() -> float:
        start = model(images)
        return max(float((model(images.roll(s, (2, 3))) - start).abs().max()) for s in shifts)

    plain = departure()
    config = AAConfig(
        filter="aps", kernel_size=kernel_size, pad_mode="circular", stem=True, groups=1
    )
    report = antialias(model, config)
    assert len(report.sites) == 3
    assert departure() < 1e-12 < 1e-4 < plain


def test_a_strided_shortcut_is_refused():
    torchvision = pytest.importorskip("torchvision")
    with pytest.raises(ValueError, match='shortcut layer2.0.downsample.0 .* filter="blur"'):
        antialias(torchvision.models.resnet18(), AAConfig(filter="aps"))


def test_the_gradient_goes_to_the_grid_that_was_kept():
    x = torch.zeros(1, 1, 4, 4)
    x[..., 1::2, ::2] = 1.0
    x.requires_grad_()
    AdaptivePolyphasePool2d(1, 1)(x).sum().backward()
    torch.testing.assert_close(x.grad, x.detach())


def test_before_a_strided_convolution_it_has_nothing_to_choose():
    with pytest.raises(ValueError, match='filter="aps" subsamples itself'):
        AAConfig(filter="aps", placement="pre")
