"""Random small networks with the oddities that conversion has to see through."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


class OddConv(nn.Conv2d):
    """Computes its padding from its stride."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, stride = self.kernel_size[0], self.stride[0]
        total = max(size - stride, 0)
        before = total // 2
        x = F.pad(x, (before, total - before, before, total - before))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Scaled(nn.Conv2d):
    """Scales what it computes by its stride."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / self.stride[0]


class OddPool(nn.MaxPool2d):
    """A pool with a forward of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x.mean((2, 3), keepdim=True)


class NormAct(nn.BatchNorm2d):
    """A norm that ends in an activation."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(super().forward(x))


class Keeps(nn.Module):
    """Keeps the map that it lets through."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = x
        return x


class Peeks(nn.Module):
    """Reads a corner of the map beside it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x[..., :1, :1]


class Looks(nn.Module):
    """Decides by values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.abs().sum()) >= 0 else -x


class Skip(nn.Module):
    """A residual branch around modules, by a strided 1×1 convolution where they stride."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, x = self.body(x), self.shortcut(x)
        height, width = (min(a, b) for a, b in zip(y.shape[-2:], x.shape[-2:]))
        return y[..., :height, :width] + x[..., :height, :width]


class Twice(nn.Module):
    """Runs one module on two maps."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x) + self.module(x.flip(-1)).flip(-1)


class Several(nn.Module):
    """Gives all maps on the way, in a dictionary."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {}
        for number, part in enumerate(self.parts):
            x = found[f"level{number}"] = part(x)
        return found


class Draw:
    """Draws networks from (N, 3, H, W).

    Args:
        seed: of the network.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.shared = nn.SiLU()

    def network(self) -> nn.Module:
        channels, parts = 3, []
        for _ in range(self.random.randint(2, 5)):
            part, channels = self.part(channels, depth=0)
            parts.append(part)
        model = Several(parts) if self.random.random() < 0.3 else nn.Sequential(*parts)
        if self.random.random() < 0.15:
            self.hook(model)
        return model

    def part(self, channels: int, depth: int) -> tuple[nn.Module, int]:
        kinds: list[tuple[int, Callable]] = [
            (5, self.convolution),
            (2, self.pool),
            (2, lambda c, d: (self.random.choice([nn.ReLU(), nn.SiLU(), nn.Hardtanh()]), c)),
            (1, lambda c, d: (self.random.choice([Keeps, Peeks, Looks, nn.Dropout2d])(), c)),
        ]
        if depth < 2:
            kinds += [(2, self.sequence), (2, self.skip), (1, self.twice)]
        weights, draws = zip(*kinds)
        return self.random.choices(draws, weights)[0](channels, depth)

    def convolution(self, channels: int, depth: int) -> tuple[nn.Module, int]:
        draw = self.random
        outputs, size = draw.choice([4, 6, 8]), draw.choice([1, 2, 3, 3, 5])
        stride = draw.choice([1, 2, 2, 3, (2, 1), (1, 2)])
        kind = draw.choices([nn.Conv2d, OddConv, Scaled], [8, 1, 1])[0]
        padding = 0 if kind is OddConv else draw.choice([0, size // 2, size // 2])
        options = {"bias": draw.random() < 0.5, "padding": padding}
        if kind is nn.Conv2d and draw.random() < 0.2 and padding:
            options["padding_mode"] = draw.choice(["reflect", "circular", "replicate"])
        if draw.random() < 0.2:
            options["dilation"] = 2
            options["padding"] = 2 * padding
        conv = kind(channels, outputs, size, stride, **options)
        if draw.random() < 0.1:
            conv.stride = list(conv.stride)
        if draw.random() < 0.08:
            conv = nn.utils.parametrizations.weight_norm(conv)
        layers: list[nn.Module] = [conv]
        norm = draw.choice([None, "batch", "batch", "group", "act"])
        if norm is not None:
            norms = {"batch": nn.BatchNorm2d, "act": NormAct, "group": lambda c: nn.GroupNorm(2, c)}
            layers.append(norms[norm](outputs))
        if draw.random() < 0.6:
            layers.append(draw.choice([nn.ReLU(), nn.LeakyReLU(), nn.GELU(), self.shared]))
        return nn.Sequential(*layers), outputs

    def pool(self, channels: int, depth: int) -> tuple[nn.Module, int]:
        draw = self.random
        size = draw.choice([2, 3])
        stride = draw.choice([1, 2, 2, 3])
        options = {"padding": draw.choice([0, size // 2]), "ceil_mode": draw.random() < 0.4}
        if draw.random() < 0.4:
            if draw.random() < 0.3:
                options["divisor_override"] = 5
            options["count_include_pad"] = draw.random() < 0.5
            return nn.AvgPool2d(size, stride, **options), channels
        kind = OddPool if draw.random() < 0.15 else nn.MaxPool2d
        if kind is OddPool:  # what it adds doesn't shrink
            return OddPool(size, stride), channels
        dilation = draw.choice([1, 1, 1, 2])
        return nn.MaxPool2d(size, stride, dilation=dilation, **options), channels

    def sequence(self, channels: int, depth: int) -> tuple[nn.Module, int]:
        parts = []
        for _ in range(self.random.randint(1, 3)):
            part, channels = self.part(channels, depth + 1)
            parts.append(part)
        return nn.Sequential(*parts), channels

    def skip(self, channels: int, depth: int) -> tuple[nn.Module, int]:
        stride, size = self.random.choice([1, 2]), self.random.choice([1, 3])
        body = nn.Sequential(
            nn.Conv2d(channels, 8, 3, stride, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=self.random.random() < 0.5),
            nn.Conv2d(8, 8, size, padding=size // 2),
        )
        shortcut = nn.Conv2d(channels, 8, 1, stride)
        return Skip(body, shortcut), 8

    def twice(self, channels: int, depth: int) -> tuple[nn.Module, int]:
        part, outputs = self.part(channels, depth + 1)
        return Twice(part), outputs

    def hook(self, model: nn.Module) -> None:
        modules = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ReLU))]
        if modules:
            seen: list[torch.Size] = []
            self.random.choice(modules).register_forward_hook(
                lambda module, args, output: seen.append(output.shape)
            )
