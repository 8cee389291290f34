from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from aa_plugins.evaluation import finite_outputs, require_finite, require_finite_weights


@dataclass
class Boxes:
    tensor: torch.Tensor


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("nest", [
    lambda v: v,
    lambda v: torch.tensor([0.0, v]),
    lambda v: torch.tensor([v]).half(),
    lambda v: np.array([[1.0, v]]),
    lambda v: np.float32(v),
    lambda v: {"p3": torch.zeros(2), "p4": [torch.zeros(1), (torch.tensor([v]),)]},
    lambda v: Boxes(torch.tensor([v])),
])  # fmt: skip
def test_what_isnt_finite_is_an_error_that_names_the_image(bad, nest):
    with pytest.raises(ValueError, match="image 'a/1.png': scores isn't finite"):
        require_finite(nest(bad), "a/1.png", "scores")
    require_finite(nest(1.0), "a/1.png", "scores")


def test_what_isnt_numeric_is_passed_over():
    require_finite({"a": None, "b": "nan", "c": torch.tensor([1]), "d": [True, b"x"]}, 1)
    require_finite(torch.empty(3, device="meta"), 1)


def test_outputs_inside_of_a_model():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten())
    broken = torch.full((1, 1, 2, 2), float("nan"))
    with finite_outputs(model[0], 7, "what the backbone computes"):
        model(torch.ones(1, 1, 2, 2))
        with pytest.raises(ValueError, match="image 7: what the backbone computes isn't finite"):
            model(broken)
    assert model(broken).isnan().any()  # nothing stays behind


def test_weights():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    require_finite_weights(model)
    model[1].running_var[0] = float("inf")
    model[0].bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="w.pth: 2 of 7 tensors aren't finite.* is 0.bias"):
        require_finite_weights(model, "w.pth")
