"""Hooks that every run of ours has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from aa_plugins.mmseg.segmentors import unwrapped


@HOOKS.register_module()
class MainProcessLoggerHook(LoggerHook):
    """mmengine's LoggerHook, whose JSON log of a test every process writes to the same file."""

    after_test_epoch = master_only(LoggerHook.after_test_epoch)


@HOOKS.register_module()
class FinitePredictionsHook(Hook):
    """Stops a validation or test at a prediction that isn't finite: its argmax is class 0."""

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence = ()
    ) -> None:
        self.after_test_iter(runner, batch_idx, data_batch, outputs)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence = ()
    ) -> None:
        for sample in outputs:
            logits = sample.get("seg_logits")
            if logits is not None and not logits.data.isfinite().all():
                raise ValueError(
                    f"{sample.get('img_path')}: the prediction isn't finite; the training "
                    "diverged, or the weights are broken: use other weights, or a lower rate"
                )


class StartFrom(Hook):
    """Puts weights into the network when its training starts, after its initialisation.

    Args:
        state: of the network, or of a part of it; other shapes are left out.
    """

    priority = "VERY_HIGH"

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        self.state = dict(state)

    def before_train(self, runner: Runner) -> None:
        unwrapped(runner.model).load_state_dict(self.state, strict=False)
        # As after mmengine's own loading: a moving average of the weights starts from them.
        runner.call_hook("after_load_checkpoint", checkpoint={"state_dict": self.state})
        self.state = {}
