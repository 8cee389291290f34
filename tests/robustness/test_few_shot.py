"""Episodes, against classes that can be told apart, or not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from aa_plugins.command import run
from aa_plugins.robustness.few_shot import (
    Features,
    episodes,
    linear,
    nearest_centroid,
    summarise_episodes,
)


def clouds(apart, each=12, classes=6, size=5):
    torch.manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(each)
    return Features(
        torch.randn(classes, size)[labels] * apart + torch.randn(len(labels), size), labels
    )


def test_the_nearest_mean_by_hand():
    support = Features(torch.tensor([[0.0], [2.0], [10.0], [12.0]]), torch.tensor([3, 3, 8, 8]))
    queries = torch.tensor([[5.9], [6.1], [-40.0]])
    assert nearest_centroid(support, queries).tolist() == [3, 8, 3]


def test_the_linear_layer_is_at_its_optimum():
    """Its answers are those of a slow descent of the same convex loss."""
    support, queries = clouds(0.7), torch.randn(40, 5)
    support = Features(support.values, support.labels * 2)
    mean, scale = support.values.mean(0), support.values.std(0, correction=0)
    inputs, weight = (support.values - mean) / scale, torch.zeros(6, 6, requires_grad=True)
    ones = torch.ones(len(inputs), 1)
    optimizer = torch.optim.Adam([weight], lr=0.1)
    for _ in range(600):
        optimizer.zero_grad()
        logits = torch.cat([inputs, ones], 1) @ weight.T
        loss = torch.nn.functional.cross_entropy(logits, support.labels // 2)
        (loss + 1e-3 * weight[:, :5].square().sum()).backward()
        optimizer.step()
    expected = torch.cat([(queries - mean) / scale, torch.ones(40, 1)], 1) @ weight.T
    assert (linear(support, queries) == 2 * expected.argmax(1)).float().mean() >= 0.97


def test_episodes_tell_apart_what_can_be():
    far, same = (episodes(clouds(apart), 4, 3, 5, 20, seed=1) for apart in (50.0, 0.0))
    results, compared = summarise_episodes({"same": same, "far": far})
    assert results["far"]["centroid"]["value"] == results["far"]["linear"]["value"] == 100
    for name in ("centroid", "linear"):
        assert abs(results["same"][name]["value"] - 25) < 8
        assert results["same"][name]["unit"] == "episode"
        assert compared["far - same"][name]["low"] > 50
    assert episodes(clouds(1.0), 4, 3, 5, 3, seed=1) == episodes(clouds(1.0), 4, 3, 5, 3, seed=1)
    with pytest.raises(ValueError, match="6 classes have 3 . 5 images, 7 are asked for"):
        episodes(clouds(1.0), 7, 3, 5, 3)


def test_the_command(tmp_path, capsys):
    random = np.random.default_rng(0)
    for label, colour in (("red", 0), ("green", 1), ("blue", 2)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 60, (40, 40, 3), dtype=np.uint8)
            pixels[..., colour] += 150
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{number}.png")
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    arguments = ["timm:test_resnet", "--weights", str(tmp_path / "w.pth"), "--size", "32", "32"]
    arguments += ["--data", str(tmp_path / "data"), "--ways", "3", "--shots", "2"]
    arguments += ["--queries", "3", "--episodes", "5", "--out", str(tmp_path / "out")]
    assert run("fewshot", [*arguments, "--debug"]) == 0
    found = json.loads((tmp_path / "out/fewshot.json").read_text())["results"]["test_resnet"]
    assert found["centroid"]["value"] > 60  # colours, by random features
    (tmp_path / "data/0.png").write_bytes((tmp_path / "data/red/0.png").read_bytes())
    assert run("fewshot", arguments) == 1
    assert "outside of class folders" in capsys.readouterr().err
