"""What is asked of a prediction: to be what the phase average says."""

from __future__ import annotations

import torch
from torch.nn.functional import kl_div, log_softmax


def divergence(average: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """KL(average ‖ softmax(logits)) in nats, the mean over images and pixels; float32.

    Args:
        average: probabilities, (N, C) or (N, C, H, W).
        logits: of the same shape.
    """
    return kl_div(log_softmax(logits.float(), 1), average, reduction="none").sum(1).mean()
