"""Few-shot classification from frozen features, on any folder of images: do features of filtered
networks carry over to new classes? After the use of Meta-Dataset in Vasconcelos et al. (ICCV 2021).

An episode draws classes, and of each a few images to learn from and others to ask about. There are
two ways to learn: the nearest class mean (Snell et al., NeurIPS 2017), and a linear layer fitted to
the features. Features are the input of the network's last linear layer. Episodes depend on the seed
alone, so that networks see the same; they share images, so intervals over episodes say how other
draws *from these images* would differ, not how other images would.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from aa_plugins.datasets.images import Photos
from aa_plugins.evaluation.bootstrap import Mean, differences, intervals
from aa_plugins.evaluation.resampling import Images
from aa_plugins.hosts.interface import Network, Record
from aa_plugins.robustness.conditions import centre_of

STEPS, DECAY = 100, 1e-3


class Features(NamedTuple):
    """Of images: (N, D) features, and the number of each image's class folder, (N,)."""

    values: torch.Tensor
    labels: torch.Tensor


def features_of(network: Network, folder: str | Path) -> Features:
    """Frozen features of the images in a folder of class folders, called as they may be.

    Raises:
        ValueError: for a network without a last linear layer, or images outside of class folders.
    """
    layers = [module for module in network.model.modules() if isinstance(module, nn.Linear)]
    if network.task != "classification" or not layers:
        raise ValueError(
            f"{network.name} has no linear layer after its features: give a classifier"
        )
    photos = Photos(folder)
    below = [path.relative_to(photos.folder).parts for path in photos.files]
    if any(len(parts) < 2 for parts in below):
        raise ValueError(f"{folder} has images outside of class folders: give CLASS/NAME.jpg")
    names = sorted({parts[0] for parts in below})
    labels = torch.tensor([names.index(parts[0]) for parts in below])
    caught: list[torch.Tensor] = []
    handle = layers[-1].register_forward_pre_hook(
        lambda _, inputs: caught.append(inputs[0][0].cpu())
    )
    try:
        images = (centre_of(network, photos.read(i)[0]) for i in range(len(photos)))
        for _ in network.predict(tqdm(images, desc=network.name, total=len(photos))):
            pass
    finally:
        handle.remove()
    return Features(torch.stack(caught).float(), labels)


def nearest_centroid(support: Features, queries: torch.Tensor) -> torch.Tensor:
    """The class (Q,) whose mean feature is the nearest to each query, (Q, D)."""
    classes = support.labels.unique()
    means = torch.stack([support.values[support.labels == c].mean(0) for c in classes])
    return classes[torch.cdist(queries, means).argmin(1)]


def linear(support: Features, queries: torch.Tensor) -> torch.Tensor:
    """The class (Q,) of each query by a linear layer, fitted to standardized features by L-BFGS
    with weight decay, from the zero layer."""
    classes, targets = support.labels.unique(return_inverse=True)
    mean, scale = support.values.mean(0), support.values.std(0, correction=0).clamp_min(1e-6)
    inputs = (support.values - mean) / scale
    layer = nn.Linear(inputs.shape[1], len(classes))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(layer(inputs), targets) + DECAY * layer.weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    with torch.no_grad():
        return classes[layer((queries - mean) / scale).argmax(1)]


def episodes(
    features: Features, ways: int, shots: int, queries: int, count: int, seed: int = 0
) -> list[Record]:
    """A record an episode: the share of queries that either way of learning gets right.

    Args:
        ways: classes of an episode.
        shots, queries: images of a class to learn from, and to ask about.
        count: of episodes.

    Raises:
        ValueError: where there are too few classes or images of a class.
    """
    sizes = torch.bincount(features.labels)
    enough = torch.nonzero(sizes >= shots + queries)[:, 0].numpy()
    if len(enough) < ways or min(ways, shots, queries, count) < 1:
        raise ValueError(
            f"{len(enough)} classes have {shots} + {queries} images, {ways} are asked for: give "
            "fewer ways, shots or queries"
        )
    random = np.random.default_rng(seed)
    records = []
    for number in range(count):
        seen, asked = [], []
        for label in random.choice(enough, ways, replace=False):
            images = torch.nonzero(features.labels == label)[:, 0].numpy()
            drawn = random.choice(images, shots + queries, replace=False)
            seen += drawn[:shots].tolist()
            asked += drawn[shots:].tolist()
        support = Features(features.values[seen], features.labels[seen])
        wanted, inputs = features.labels[asked], features.values[asked]
        ways_of_learning = {"centroid": nearest_centroid, "linear": linear}
        right = {
            name: float((learn(support, inputs) == wanted).double().mean())
            for name, learn in ways_of_learning.items()
        }
        records.append({"image_id": number, **right})
    return records


def few_shot_statistics(records: list[Record]) -> dict:
    """Records to the tree of statistics: accuracies in percent, means over episodes."""
    return {
        name: Mean([record[name] for record in records], 100) for name in ("centroid", "linear")
    }


def summarise_episodes(records: dict[str, list[Record]]) -> tuple[dict, dict]:
    """Numbers of every network and differences of every pair, with intervals over episodes."""
    trees = {name: few_shot_statistics(found) for name, found in records.items()}
    names, units = list(trees), Images("episode")
    results = {name: intervals(tree, units=units) for name, tree in trees.items()}
    compared = {
        f"{later} - {earlier}": differences(trees[earlier], trees[later], units=units)
        for position, later in enumerate(names)
        for earlier in names[:position]
    }
    return results, compared
