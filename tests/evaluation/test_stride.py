import pytest
import torch
from torch import nn

from aa_plugins.evaluation.stride import stride_at, total_stride


def conv(stride, dilation=1):
    return nn.Conv2d(3, 3, 3, stride, dilation, dilation)


class Pyramid(nn.Module):
    """Maps of strides 2 to 64, of which the output reads those up to `last`; a pooled context."""

    def __init__(self, last):
        super().__init__()
        self.levels = nn.ModuleList(conv(2) for _ in range(6))
        self.context = nn.AdaptiveAvgPool2d(4)
        self.last = last

    def forward(self, x):
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        read = maps[: self.last]
        up = [nn.functional.interpolate(m, size=maps[0].shape[-2:]) for m in read]
        context = nn.functional.interpolate(self.context(maps[0]), size=maps[0].shape[-2:])
        return {"out": [sum(up) + context], "sizes": (x.shape[-1],)}


class Tokens(nn.Module):
    """Patches of 16 × 16 as a sequence (N, L, C), and attention between them."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, 16)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        return self.norm(self.patches(x).flatten(2).transpose(1, 2)).mean(1)


@pytest.mark.parametrize("last", [2, 4, 6])
def test_only_maps_that_the_output_reads_count(last):
    assert total_stride(Pyramid(last)) == 2**last


def test_dilation_lowers_no_resolution_and_upsampling_raises_none():
    network = nn.Sequential(conv(2), conv(2), conv(1, dilation=4), nn.Upsample(scale_factor=4))
    assert total_stride(network) == 4
    assert total_stride(nn.Sequential(conv(1), nn.ReLU(inplace=True))) == 1


def test_channels_last_maps_tokens_and_odd_paddings():
    assert total_stride(Tokens()) == 16
    assert total_stride(nn.Sequential(nn.Conv2d(3, 4, 5, 4), nn.MaxPool2d(3, 2))) == 8

    class ChannelsLast(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = conv(8), nn.Linear(3, 5)

        def forward(self, x):
            return self.linear(self.conv(x).permute(0, 2, 3, 1))

    assert total_stride(ChannelsLast()) == 8


def test_a_part_stands_for_the_whole_and_the_network_comes_back_as_it_was():
    network = nn.Sequential(conv(4), nn.BatchNorm2d(3), nn.Dropout(), conv(8))
    network.train()
    network[1].eval()
    before = network[1].running_mean.clone()
    assert total_stride(network, run=lambda x: network[:3](x)) == 4
    assert [module.training for module in network] == [True, False, True, True]
    assert torch.equal(network[1].running_mean, before)
    assert all(p.grad is None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_without_maps_is_refused_with_what_to_do():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="state it as the protocol's stride"):
        total_stride(network)


@pytest.mark.parametrize(
    "name, options, stride",
    [
        ("resnet18", {}, 32),
        ("resnet26", {"output_stride": 8}, 8),
        ("convnext_atto", {}, 32),
        ("pvt_v2_b0", {}, 32),
    ],
)
def test_strides_that_timm_states(name, options, stride):
    timm = pytest.importorskip("timm")
    network = timm.create_model(name, features_only=True, **options)
    assert total_stride(network) == stride == max(network.feature_info.reduction())


@pytest.mark.parametrize("size", [(96, 128), (160, 160)])
def test_a_network_of_one_size(size):
    class OneSize(nn.Sequential):
        def forward(self, x):
            assert x.shape[-2:] == size, "another size"
            return super().forward(x).mean((2, 3))

    network = OneSize(conv(2), conv(4), nn.Conv2d(3, 3, 3, 2, 2), nn.Conv2d(3, 3, 3, 1, 1)).eval()
    with pytest.raises(AssertionError, match="another size"):
        total_stride(network)
    assert stride_at(network, torch.zeros(1, 3, *size)) == 8  # the last ones: 7×9 or 11×11
    with pytest.raises(ValueError, match="state its total stride"):
        stride_at(nn.Conv2d(3, 3, 5).eval(), torch.zeros(1, 3, *size))
