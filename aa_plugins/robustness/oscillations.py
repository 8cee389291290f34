"""Training networks to tell oscillations apart, and which they do (Ribeiro & Schön, ICASSP 2021).

The record of a class, a pair of frequencies, is how many of its test images were right; so classes
are what intervals resample. See `aa_plugins.diagnostics.oscillation` for the images and networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from aa_plugins.diagnostics.oscillation import FREQUENCIES, Oscillations, told_apart
from aa_plugins.evaluation.bootstrap import Ratio
from aa_plugins.evaluation.task import Task

# Of the residual networks' three stages: what oscillates faster aliases at the last subsampling.
LAST_LIMIT = FREQUENCIES // 4


def train(model: nn.Module, examples: Oscillations, epochs: int, batch: int, lr: float) -> None:
    """Adam with a rate that rises for a tenth of the steps and falls as a cosine; order and weights
    depend on torch's seed."""
    steps = epochs * -(-len(examples.labels) // batch)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(examples.labels)).split(batch):
            loss = F.cross_entropy(model(examples.images[chosen]), examples.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def records_of(model: nn.Module, examples: Oscillations, each: int) -> list[dict]:
    """A record a class.

    Args:
        examples: to test on, `each` a class.
    """
    shares = told_apart(model, examples)
    return [
        {
            "image_id": f"{v:02d},{u:02d}",
            "protocol": "oscillations",
            "unit": "class",
            "frequencies": [v, u],
            "right": round(float(shares[v, u]) * each),
            "images": each,
        }
        for v in range(FREQUENCIES)
        for u in range(FREQUENCIES)
    ]


def statistics(records: Sequence[dict]) -> dict:
    """Records to the tree of statistics, in percent: ``accuracy``, and that of the classes whose
    frequencies are both under half the rate of the last of two subsamplings (``below``), or not
    (``above``), and by the larger of the two frequencies, ``largest``."""

    def share(chosen: Sequence[bool]) -> Ratio:
        right = [record["right"] * kept for record, kept in zip(records, chosen)]
        return Ratio(right, [record["images"] * kept for record, kept in zip(records, chosen)], 100)

    largest = [max(record["frequencies"]) for record in records]
    return {
        "accuracy": share([True] * len(records)),
        "below": share([one < LAST_LIMIT for one in largest]),
        "above": share([one >= LAST_LIMIT for one in largest]),
        "largest": {str(f): share([one == f for one in largest]) for f in range(FREQUENCIES)},
    }


OSCILLATIONS = Task(
    name="oscillations",
    scorer=Oscillations,
    statistics=statistics,
    columns=("accuracy", "below", "above"),
    constant=lambda records: {},
)
