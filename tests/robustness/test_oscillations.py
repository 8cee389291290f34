"""Training on oscillations, and what a class' record says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aa_plugins.diagnostics.oscillation import FREQUENCIES, Oscillations, fully_connected
from aa_plugins.robustness.oscillations import OSCILLATIONS, records_of, train


class Knows(nn.Module):
    """Right where both frequencies are under 5, and for every third class; images hold theirs."""

    def forward(self, x):
        labels = x[:, 0, 0, 0].long()
        right = (labels // FREQUENCIES < 5) & (labels % FREQUENCIES < 5) | (labels % 3 == 0)
        return nn.functional.one_hot(torch.where(right, labels, (labels + 1) % 400), 400)


def test_the_records_are_sums_by_class():
    labels = torch.arange(FREQUENCIES**2).repeat_interleave(2)
    images = labels[:, None, None, None].float().expand(-1, 1, 32, 32)
    records = records_of(Knows(), Oscillations(images, labels), each=2)
    assert len(records) == 400 and {record["images"] for record in records} == {2}
    tree = OSCILLATIONS.summarise(records, resamples=50)
    low = [r["frequencies"] for r in records if max(r["frequencies"]) < 5]
    assert len(low) == 25 and tree["below"]["value"] == 100
    others = [20 * v + u for v, u in (r["frequencies"] for r in records) if max(v, u) >= 5]
    expected = 100 * sum(number % 3 == 0 for number in others) / len(others)
    assert tree["above"]["value"] == pytest.approx(expected)
    assert tree["largest"]["0"]["value"] == 100 and len(tree["largest"]) == 20
    assert tree["accuracy"]["unit"] == "class"
    total = sum(r["right"] for r in records) / 800
    assert tree["accuracy"]["value"] == pytest.approx(100 * total)


def test_a_training_learns_and_repeats():
    torch.manual_seed(0)
    labels = torch.arange(4).repeat(16)
    images = torch.randn(4, 1, 32, 32)[labels] + 0.1 * torch.randn(64, 1, 32, 32)
    states = []
    for _ in range(2):
        torch.manual_seed(1)
        model = fully_connected(1, 8)
        train(model, Oscillations(images, labels), epochs=8, batch=16, lr=0.01)
        states.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states)))
    assert (model.eval()(images).argmax(1) == labels).float().mean() == 1
