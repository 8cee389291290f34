"""Training and testing of a config of MMSegmentation, with mmengine's runner."""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch

from aa_plugins.mmseg.checkpoints import weights_only
from aa_plugins.mmseg.consistency import metric_of
from aa_plugins.mmseg.runs import build_runner, identity_of, load_config


@weights_only()
def main(args: argparse.Namespace) -> dict[str, Any] | None:
    """What tools/train_net.py runs: train, then test; or test alone with `--eval-only`.

    An interrupted test goes on with `--eval-only --resume`: scored views aren't run again.

    Args:
        args: config_file, work_dir, cfg_options, data_root, weights, resume, eval_only, amp,
            launcher, local_rank.

    Returns:
        The metrics of the test, where one was run.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    cfg = load_config(args.config_file, args.work_dir, args.cfg_options, args.data_root)
    cfg.launcher = args.launcher
    cfg.resume = args.resume
    if args.eval_only:
        weights = args.weights or cfg.load_from
        if weights is None:
            raise ValueError("--eval-only has nothing to evaluate: name weights with --weights")
        cfg.load_from, cfg.resume = None, False
        if (metric := metric_of(cfg)) is not None:
            metric.update(resume=args.resume, identity=identity_of(cfg, weights))
        return build_runner(cfg, weights).test()
    if args.amp:
        if torch.cuda.is_available():
            cfg.optim_wrapper.type = "AmpOptimWrapper"
            cfg.optim_wrapper.setdefault("loss_scale", "dynamic")
        else:
            cfg.optim_wrapper.type = "CpuAmpOptimWrapper"
    if args.weights:
        cfg.load_from = args.weights
    runner = build_runner(cfg)
    runner.train()
    return runner.test()
