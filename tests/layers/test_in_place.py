"""Exchanging the class of a module keeps everything else, through copies and pickles."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from aa_plugins.layers.in_place import InPlace, mix_in


class Doubled(InPlace):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Shifted(InPlace):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1 + super().forward(x)


def mixed(*mixins: type[InPlace]) -> nn.Conv2d:
    conv = nn.Conv2d(2, 3, 1)
    for mixin in mixins:
        mix_in(conv, mixin)
    return conv


def test_the_module_is_the_same_object_and_more():
    conv = nn.Conv2d(2, 3, 1)
    weight, keys, seen = conv.weight, list(conv.state_dict()), []
    conv.register_forward_hook(lambda module, args, output: seen.append(output))
    x = torch.randn(1, 2, 4, 4)
    expected = conv(x)
    mix_in(conv, Doubled)
    assert conv.weight is weight and list(conv.state_dict()) == keys
    assert isinstance(conv, nn.Conv2d) and isinstance(conv, Doubled)
    assert torch.equal(conv(x), 2 * expected)
    assert len(seen) == 2


def test_the_last_behaviour_comes_first():
    x = torch.ones(1, 2, 1, 1)
    plain = nn.functional.conv2d
    twice = mixed(Doubled, Shifted)
    assert torch.equal(twice(x), 1 + 2 * plain(x, twice.weight, twice.bias))
    twice = mixed(Shifted, Doubled)
    assert torch.equal(twice(x), 2 * (1 + plain(x, twice.weight, twice.bias)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda conv: pickle.loads(pickle.dumps(conv))])
@pytest.mark.parametrize("mixins", [(Doubled,), (Doubled, Shifted)])
def test_copies_and_pickles_keep_every_behaviour(mixins, copied):
    conv = mixed(*mixins)
    conv.marker = "kept"
    other = copied(nn.Sequential(conv, conv))
    assert other[0] is other[1]
    assert type(other[0]) is type(conv) and other[0].marker == "kept"
    assert other[0].weight is not conv.weight
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(other[0](x), conv(x))


def test_classes_are_made_once():
    assert type(mixed(Doubled)) is type(mixed(Doubled))
    assert type(mixed(Doubled)).__name__ == "DoubledConv2d"
