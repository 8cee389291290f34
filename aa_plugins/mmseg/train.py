"""Training and testing of a config of MMSegmentation, with mmengine's runner."""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from mmengine.runner import Runner

from aa_plugins.mmseg.checkpoints import weights_only
from aa_plugins.mmseg.checks import check_run, starting_state
from aa_plugins.mmseg.consistency import ShiftConsistencyMetric
from aa_plugins.mmseg.errors import run_faults
from aa_plugins.mmseg.hooks import StartFrom
from aa_plugins.mmseg.runs import build_runner, identity_of, load_config
from aa_plugins.mmseg.segmentors import conversion_of, unwrapped


@weights_only()
def main(args: argparse.Namespace) -> dict[str, Any] | None:
    """What tools/train_net.py runs: train, then test; or test alone with `--eval-only`.

    An interrupted test goes on with `--eval-only --resume`: scored views aren't run again.

    Args:
        args: config_file, work_dir, cfg_options, data_root, weights, resume, eval_only, amp,
            launcher, local_rank.

    Returns:
        The metrics of the test, where one was run.

    Raises:
        ValueError, OSError: for whatever is wrong with config, weights, images or labels.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = load_config(args.config_file, args.work_dir, args.cfg_options, args.data_root)
    cfg.launcher = args.launcher
    cfg.resume = args.resume
    weights = args.weights or cfg.get("load_from")
    with run_faults():
        if args.eval_only:
            if weights is None:
                raise ValueError("--eval-only has nothing to evaluate: name weights with --weights")
            if args.amp:
                raise ValueError("--amp is for training: leave it out with --eval-only")
            cfg.load_from, cfg.resume = None, False
            runner = build_runner(cfg, weights)
            check_run(runner)
            for metric in _metrics(runner):
                metric.resume = args.resume
                identity = identity_of(cfg, weights, runner.test_loop.dataloader.dataset)
                metric.identity = identity
        else:
            if args.amp:
                if torch.cuda.is_available():
                    cfg.optim_wrapper.type = "AmpOptimWrapper"
                    cfg.optim_wrapper.setdefault("loss_scale", "dynamic")
                else:
                    cfg.optim_wrapper.type = "CpuAmpOptimWrapper"
            cfg.load_from = weights if args.resume else None
            runner = build_runner(cfg)
            if weights:
                _start_from(runner, weights, args.resume)
            check_run(runner, training=True)
            runner.train()
        metrics = runner.test()
    if not _metrics(runner):
        runner.logger.info(
            "shift consistency wasn't measured: add "
            'custom_hooks = [dict(type="ShiftConsistencyHook")] to the config'
        )
    runner.logger.info(conversion_of(unwrapped(runner.model)))
    return metrics


def _metrics(runner: Runner) -> list[ShiftConsistencyMetric]:
    found = runner.test_loop.evaluator.metrics
    return [metric for metric in found if isinstance(metric, ShiftConsistencyMetric)]


def _start_from(runner: Runner, weights: str, resumes: bool) -> None:
    """Let a training start from weights; resumed, mmengine itself goes on from this file."""
    state, left = starting_state(unwrapped(runner.model), weights)
    if not resumes:
        runner.register_hook(StartFrom(state))
    said = f": {len(left)} tensors keep their start, the first is {left[0]}" if left else ""
    runner.logger.info(f"training starts from {weights}, which has {len(state)} tensors{said}")
