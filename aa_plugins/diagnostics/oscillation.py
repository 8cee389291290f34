"""Which frequencies a network tells apart: the oscillations of Ribeiro and Schön (ICASSP 2021).

400 classes, one for each pair of frequencies of a product of two cosines with random phases under
uniform noise. Above half the rate of the first subsampling a network can tell classes apart only by
what aliases.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

SIZE = 32
FREQUENCIES = 20  # along each axis: 0, 1/20, …, 19/20 of the highest


class Oscillations(NamedTuple):
    """Images (N, 1, 32, 32), and their classes (N,): that of frequencies (v, u) is 20 v + u."""

    images: torch.Tensor
    labels: torch.Tensor


def oscillations(each: int, noise: float, seed: int) -> Oscillations:
    """Examples of every class: cos(π v y + φ) cos(π u x + ψ) + uniform noise in ±`noise`.

    Args:
        each: examples of a class.
        noise: amplitude of the noise, that of the oscillation being 1.
        seed: of phases and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(FREQUENCIES**2).repeat_interleave(each)
    positions = torch.arange(SIZE) * torch.pi / FREQUENCIES
    waves = []
    for numbers in (labels // FREQUENCIES, labels % FREQUENCIES):
        phases = 2 * torch.pi * torch.rand(len(labels), 1, generator=generator)
        waves.append(torch.cos(numbers[:, None] * positions + phases))
    images = waves[0][:, None, :, None] * waves[1][:, None, None, :]
    drawn = torch.rand(images.shape, generator=generator)
    return Oscillations(images + noise * (2 * drawn - 1), labels)


def fully_connected(hidden_layers: int, width: int) -> nn.Sequential:
    """A network of 1 or 2 hidden layers, which subsamples nothing."""
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = SIZE**2
    for _ in range(hidden_layers):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, FREQUENCIES**2))


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut, which strides by a 1×1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.act2 = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C', ⌈H/stride⌉, ⌈W/stride⌉)."""
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        return self.act2(y + self.downsample(x))


def residual(blocks: int, width: int, growing: bool = False) -> nn.Sequential:
    """A residual network of three stages, the second and third at half the resolution each.

    Args:
        blocks: of a stage; the network has 6 · blocks + 2 layers.
        width: channels of the first stage.
        growing: whether each stage has twice the channels of the one before, or as many.
    """
    stem = [nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    layers: list[nn.Module] = list(stem)
    inputs = width
    for stage in range(3):
        outputs = width * 2**stage if growing else width
        for block in range(blocks):
            layers.append(Block(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, FREQUENCIES**2)]
    return nn.Sequential(*layers, *head)


@torch.no_grad()
def told_apart(model: nn.Module, examples: Oscillations) -> torch.Tensor:
    """Share of right answers for every pair of frequencies, (20, 20): rows v, columns u."""
    model.eval()
    right = torch.cat([model(batch).argmax(1) for batch in examples.images.split(500)])
    right = (right == examples.labels).double()
    counts = torch.bincount(examples.labels, minlength=FREQUENCIES**2).clamp_min(1)
    sums = torch.zeros(FREQUENCIES**2, dtype=torch.float64).index_add(0, examples.labels, right)
    return (sums / counts).view(FREQUENCIES, FREQUENCIES)
