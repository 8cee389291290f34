"""Small networks whose answers are known, and images."""

import torch
from torch import nn
from torch.nn.functional import interpolate

CLASSES = 5


class Equivariant(nn.Module):
    """Dense logits by convolutions at stride 1, receptive radius 3: shifts commute with it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, CLASSES, 3, padding=1),
        )

    def forward(self, x):
        return 3 * self.layers(x)


class Subsampling(nn.Module):
    """Dense logits at stride 4, brought back to the input's size."""

    def __init__(self, norm=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(0.5)
        self.body = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = self.head(torch.relu(self.body(self.dropout(x))))
        return 6 * interpolate(x, scale_factor=4.0, mode="nearest")


class Classifier(nn.Module):
    """Logits of images, total stride 4."""

    def __init__(self):
        super().__init__()
        self.features = Subsampling()

    def forward(self, x):
        return self.features(x).mean((2, 3))


def images(count=6, height=27, width=31, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, 3, height, width, generator=generator))


def seeded(network, seed=0, **options):
    torch.manual_seed(seed)
    return network(**options).eval()
