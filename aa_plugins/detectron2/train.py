"""Training and evaluation of a config, yaml or LazyConfig, with Detectron2's own trainers."""

from __future__ import annotations

import argparse
import os
import weakref
from typing import Any

import torch
from detectron2 import engine
from detectron2.config import CfgNode, instantiate
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    SimpleTrainer,
    default_setup,
    default_writers,
    hooks,
)
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch import nn

from aa_plugins.detectron2.amp import CpuAmpTrainer
from aa_plugins.detectron2.cityscapes import CityscapesEvaluator
from aa_plugins.detectron2.config import load_lazy, load_yaml
from aa_plugins.detectron2.datasets import CheckedMapper, register_coco_paths
from aa_plugins.detectron2.freezing import log_filters
from aa_plugins.detectron2.optimizer import set_filter_rate
from aa_plugins.detectron2.weights import AuditedCheckpointer


def launch(args: argparse.Namespace, lazy: bool) -> None:
    """What tools/train_net.py runs: `main` in `num_gpus` processes on each machine.

    Without GPUs the processes share the CPU, and evaluation alone can be divided among them.

    Args:
        args: as parsed by Detectron2's `default_argument_parser`, and `weights`.
        lazy: whether the config file is a LazyConfig.
    """
    engine.launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args, lazy),
    )


def main(args: argparse.Namespace, lazy: bool = False) -> dict[str, Any] | None:
    """Train, or with `args.eval_only` evaluate, the config of `args.config_file`.

    Returns:
        Results by task and metric, on the main process and where an evaluation ran.
    """
    return _main_lazy(args) if lazy else _main_yaml(args)


class Trainer(DefaultTrainer):
    """Detectron2's trainer; filters train whatever is frozen around them."""

    def __init__(self, cfg: CfgNode):
        super().__init__(cfg)
        if cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu":
            self._trainer = CpuAmpTrainer(self.model, self.data_loader, self.optimizer)
        trainer = weakref.proxy(self)
        self.checkpointer = AuditedCheckpointer(self.model, cfg.OUTPUT_DIR, trainer=trainer)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = super().build_model(cfg)
        log_filters(model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        optimizer = super().build_optimizer(cfg, model)
        solver = cfg.SOLVER
        set_filter_rate(optimizer, model, solver.FILTER_LR_FACTOR, solver.WEIGHT_DECAY_FILTER)
        return optimizer

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        return build_detection_train_loader(cfg, mapper=CheckedMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        mapper = CheckedMapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(dataset_name, os.path.join(cfg.OUTPUT_DIR, "inference"))


def build_evaluator(dataset_name: str, output_dir: str) -> DatasetEvaluator:
    """The evaluator that a dataset's metadata ask for: COCO's, or Cityscapes' own.

    Raises:
        NotImplementedError: for a dataset of another type.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", None)
    if kind == "coco":
        return COCOEvaluator(dataset_name, output_dir=output_dir)
    if kind == "cityscapes_instance":
        return CityscapesEvaluator(dataset_name)
    raise NotImplementedError(
        f"dataset {dataset_name!r} has evaluator_type={kind!r}: use one in COCO's format "
        "(DATASETS.COCO_PATHS) or Cityscapes instances"
    )


def _setup(cfg: CfgNode | DictConfig, args: argparse.Namespace) -> None:
    default_setup(cfg, args)
    output_dir = cfg.OUTPUT_DIR if isinstance(cfg, CfgNode) else cfg.train.output_dir
    setup_logger(output_dir, distributed_rank=comm.get_rank(), name="aa_plugins")


def _main_yaml(args: argparse.Namespace) -> dict[str, Any] | None:
    cfg = load_yaml(args.config_file, args.opts, getattr(args, "weights", None))
    register_coco_paths(cfg)
    _setup(cfg, args)
    if not args.eval_only:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
        return getattr(trainer, "_last_eval_results", None)
    model = Trainer.build_model(cfg)
    checkpointer = AuditedCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def _main_lazy(args: argparse.Namespace) -> dict[str, Any] | None:
    cfg = load_lazy(args.config_file, args.opts, getattr(args, "weights", None))
    _setup(cfg, args)
    if not args.eval_only:
        return _train_lazy(cfg, resume=args.resume)
    model = create_ddp_model(instantiate(cfg.model).to(cfg.train.device))
    AuditedCheckpointer(model, cfg.train.output_dir).resume_or_load(
        cfg.train.init_checkpoint, resume=args.resume
    )
    return _test_lazy(cfg, model)


def _test_lazy(cfg: DictConfig, model: nn.Module) -> dict[str, Any] | None:
    loader = instantiate(cfg.dataloader.test)
    results = inference_on_dataset(model, loader, instantiate(cfg.dataloader.evaluator))
    if comm.is_main_process():
        print_csv_format(results)
    return results


def _train_lazy(cfg: DictConfig, resume: bool) -> dict[str, Any] | None:
    model = instantiate(cfg.model).to(cfg.train.device)
    log_filters(model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    loader = instantiate(cfg.dataloader.train)
    model = create_ddp_model(model, **cfg.train.ddp)
    amp = CpuAmpTrainer if cfg.train.device == "cpu" else AMPTrainer
    trainer_class = amp if cfg.train.amp.enabled else SimpleTrainer
    trainer = trainer_class(model, loader, optimizer)
    checkpointer = AuditedCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    results: dict[str, Any] = {}

    def evaluate() -> dict[str, Any] | None:
        results.update(_test_lazy(cfg, model) or {})
        return results

    # None stands where a hook is for the main process alone.
    main = comm.is_main_process()
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter) if main else []
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if main else None,
            hooks.EvalHook(cfg.train.eval_period, evaluate),
            hooks.PeriodicWriter(writers, period=cfg.train.log_period) if main else None,
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    resumed = resume and checkpointer.has_checkpoint()
    trainer.train(trainer.iter + 1 if resumed else 0, cfg.train.max_iter)
    return results or None
