"""The worst mIoU and AP under shifts, against every shift scored by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from aa_plugins.evaluation import surface_shifts
from aa_plugins.hosts.module import ModuleNetwork, Preparation
from aa_plugins.robustness.tasks import ANALYSES
from aa_plugins.robustness.worst_shift import measure_worst, shift_protocol

RADIUS, CROP = 2, (24, 32)
SHIFTS = [(0, 0), *surface_shifts(RADIUS)]
TOP, LEFT = 2, 4  # of the reference crop in images of 28×40


class Scenes:
    """Noisy images, and their truth."""

    def __init__(self, task, truths, num_classes):
        random = np.random.default_rng(0)
        self.task, self.truths, self.num_classes = task, truths, num_classes
        self.ids = self.files = list(range(len(truths)))
        self.images = [random.integers(0, 255, (28, 40, 3), dtype=np.uint8) for _ in truths]

    def read(self, index):
        return self.images[index], self.truths[index]


def worst_of(network, tmp_path):
    protocol = shift_protocol({"stride": 2, "crop": CROP}, RADIUS)
    records = measure_worst(network, protocol, RADIUS, tmp_path)
    return ANALYSES[f"{network.task}/shifts"].summarise(records, resamples=10)


def cut(image, shift):
    dy, dx = TOP + shift[0], LEFT + shift[1]
    return image[..., dy : dy + CROP[0], dx : dx + CROP[1]]


def test_miou(tmp_path):
    torch.manual_seed(0)
    random = np.random.default_rng(1)
    truths = [random.integers(0, 3, (28, 40)).astype(np.uint8) for _ in range(3)]
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    images = Scenes("semantic", truths, 3)
    network = ModuleNetwork(model, "semantic", images, 3, Preparation(), stride=2)
    tree = worst_of(network, tmp_path)
    for radius in (1, 2):
        above, below = np.zeros(3), np.zeros(3)
        for index, truth in enumerate(truths):
            pixels = network.prepared(images.images[index])
            scored = []
            for shift in SHIFTS:
                if max(map(abs, shift)) > radius:
                    continue
                (probabilities,) = network.predict([cut(pixels, shift)])
                found, wanted = probabilities.argmax(0).numpy(), cut(truth, shift)
                both = np.array([((found == c) & (wanted == c)).sum() for c in range(3)])
                any_ = np.array([((found == c) | (wanted == c)).sum() for c in range(3)])
                scored.append(((both / any_).mean(), both, any_))
            _, both, any_ = min(scored, key=lambda entry: entry[0])
            above, below = above + both, below + any_
        expected = 100 * (above / below).mean()
        np.testing.assert_allclose(tree["mIoU"][str(radius)]["value"], expected, rtol=1e-6)
    assert tree["mIoU"]["2"]["value"] < tree["clean"]["mIoU"]["value"]


class Aliasing(nn.Module):
    """Finds the one bright rectangle, its left edge on a grid of four pixels."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 1, 1)

    def forward(self, images):
        rows, columns = zip(*(torch.nonzero(x[0] > 0.9).T for x in images))
        boxes = [
            torch.tensor([[c.min() // 4 * 4, r.min(), c.max() + 1, r.max() + 1]]).float()
            for r, c in zip(rows, columns)
        ]
        ones = torch.ones(1)
        return [{"boxes": box, "labels": ones.long(), "scores": ones} for box in boxes]


def precision(right):
    """Average precision, at 101 recalls, of one detection an image, in order, one object each."""
    shares = right.cumsum() / (np.arange(len(right)) + 1)
    recalls = right.cumsum() / len(right)
    best = [max(shares[recalls >= r - 1e-9], default=0) for r in np.linspace(0, 1, 101)]
    return float(np.mean(best))


def test_ap(tmp_path):
    """Of one object and one detection an image, whose IoU is known in closed form."""
    places = [(10, 8, 18, 20), (13, 9, 19, 17), (17, 12, 30, 16)]  # x0, y0, x1, y1
    truths = [{"boxes": torch.tensor([p]).float(), "labels": torch.tensor([1])} for p in places]
    images = Scenes("instance", truths, 2)
    for image, (x0, y0, x1, y1) in zip(images.images, places):
        image[:] = image // 2
        image[y0:y1, x0:x1] = 255
    network = ModuleNetwork(Aliasing(), "instance", images, stride=2)
    tree = worst_of(network, tmp_path)
    for radius in (1, 2):
        worst = []
        for x0, _, x1, _ in places:
            inside = [shift for shift in SHIFTS if max(map(abs, shift)) <= radius]
            worst.append(min((x1 - x0) / (x1 - x0 + (x0 - LEFT - dx) % 4) for _, dx in inside))
        expected = np.mean([precision(np.array(worst) >= t) for t in np.linspace(0.5, 0.95, 10)])
        np.testing.assert_allclose(tree["box_AP"][str(radius)]["value"], 100 * expected, rtol=1e-6)
    assert tree["box_AP"]["2"]["value"] < tree["clean"]["box_AP"]["value"]
