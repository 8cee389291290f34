"""Which step flickers, on networks of which that is known."""

from __future__ import annotations

import copy
import math

import pytest
import timm
import torch
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.places import Place, places
from aa_plugins.diagnostics.stages import distance, flicker_by_step
from aa_plugins.layers import AdaptiveBlurPool2d, BlurPool2d, FilterBankPool2d


class Decimation(nn.Conv2d):
    """Keeps every second pixel."""

    def __init__(self) -> None:
        super().__init__(1, 1, 1, stride=2, bias=False)
        nn.init.ones_(self.weight)


def wave(cycles: int, size: int = 80) -> torch.Tensor:
    """A cosine along both axes, with a period of 64 / cycles pixels: (1, 1, size, size)."""
    line = torch.cos(2 * math.pi * cycles / 64 * torch.arange(size))
    return (line[:, None] + line)[None, None]


def test_a_slow_wave_moves_along_and_a_fast_one_does_not():
    model = nn.Sequential(Decimation()).eval()
    (slow,) = flicker_by_step(model, wave(4))
    (fast,) = flicker_by_step(model, wave(28))
    assert slow.stride == 2 and slow.before[1] < 1e-5 and slow.after[1] < 0.02
    # One axis' wave comes back in opposite phase, twice its length away; the other's is at rest.
    assert fast.before[1] < 1e-5
    assert float(fast.after[1]) == pytest.approx(math.sqrt(2), rel=0.1)
    assert torch.equal(fast.brought_in, fast.after[1] - fast.before[1])


def test_a_shift_by_the_stride_is_no_flicker():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)).eval()
    (step,) = flicker_by_step(model, torch.randn(2, 1, 72, 72), shifts=(1, 2, 4))
    assert step.after[1].shape == (2,) and (step.after[1] > 0.5).all()
    assert (step.after[2] < 1e-5).all() and (step.after[4] < 1e-5).all()


def test_a_network_without_subsampling_has_no_step():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()).eval()
    assert flicker_by_step(model, torch.randn(1, 1, 72, 72)) == []


def test_a_blur_takes_flicker_away():
    torch.manual_seed(0)
    images = nn.functional.avg_pool2d(torch.randn(2, 3, 264, 264), 3, 1, 1)
    plain = timm.create_model("resnet18").eval()
    blurred = copy.deepcopy(plain)
    antialias(blurred, AAConfig(filter="blur", kernel_size=5, stem=True))
    steps = [flicker_by_step(model, images) for model in (plain, blurred)]
    at_16 = [next(s.after[1].mean() for s in found if s.stride == 16) for found in steps]
    assert at_16[1] < 0.8 * at_16[0]
    names = [step.name for step in steps[1]]
    assert names[:2] == ["act1.postfilter", "maxpool.postfilter"]


def test_distance_by_hand():
    map_ = torch.arange(100.0).view(1, 1, 10, 10)
    assert distance(map_, map_ + 10, (1, 0)) < 1e-6
    assert distance(map_, map_ + 10, (0, 0)) > 0.1


@pytest.mark.parametrize(
    "layer",
    [
        BlurPool2d(4, 5),
        AdaptiveBlurPool2d(4, 3, groups=2, init="paper"),
        AdaptiveBlurPool2d(4, 3, groups=2, init="identity", predictor="separable"),
        FilterBankPool2d(4, groups=2, init="paper", predictor_input="blurred"),
        nn.Conv2d(4, 4, 3, 2, 1),
        nn.MaxPool2d(3, 2, 1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_the_map_at_every_position_holds_the_kept_ones(layer):
    torch.manual_seed(0)
    layer.eval()
    x = torch.randn(2, 4, 13, 16)
    with torch.no_grad():
        every, kept = Place("", layer, 2).filtered_map(x), layer(x)
    assert every.shape[-2:] == x.shape[-2:]
    torch.testing.assert_close(every[..., ::2, ::2], kept)


def test_a_fixed_filter_at_every_position_is_its_convolution():
    x = torch.randn(1, 1, 12, 12)
    kernel = torch.tensor([1.0, 2, 1])
    kernel = (kernel[:, None] * kernel / 16)[None, None]
    every = Place("", BlurPool2d(1, 3), 2).filtered_map(x)
    inner = every[..., 2:-1, 2:-1]
    torch.testing.assert_close(inner, nn.functional.conv2d(x, kernel)[..., 1:, 1:])


def test_places_of_a_converted_network():
    model = timm.create_model("resnet18")
    antialias(model, AAConfig(filter="adaptive", stem=False))
    found = places(model)
    assert [p.name for p in found if not p.filtered] == ["conv1"]
    assert sum(p.filtered for p in found) == 7
    assert {p.stride for p in found} == {2}


def test_training_mode_and_small_images_are_refused():
    with pytest.raises(ValueError, match="training mode"):
        flicker_by_step(nn.Sequential(Decimation()), wave(4))
    with pytest.raises(ValueError, match="leave no crop"):
        flicker_by_step(nn.Sequential(Decimation()).eval(), wave(4, size=32))
