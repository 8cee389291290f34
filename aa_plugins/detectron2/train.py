"""Training and evaluation of a config, yaml or LazyConfig, with Detectron2's own trainers."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import weakref
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
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
from omegaconf import DictConfig
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from aa_plugins.detectron2 import processes
from aa_plugins.detectron2.amp import CpuAmpTrainer
from aa_plugins.detectron2.checks import check_classes, check_datasets, check_folder, images_of
from aa_plugins.detectron2.cityscapes import CityscapesEvaluator
from aa_plugins.detectron2.config import instantiated, load_lazy, load_yaml, pairs_of
from aa_plugins.detectron2.conversion import check_conversion, conversion
from aa_plugins.detectron2.datasets import (
    CheckedMapper,
    names_in,
    names_of,
    register_coco_paths,
    use_data_root,
)
from aa_plugins.detectron2.freezing import log_filters
from aa_plugins.detectron2.optimizer import set_filter_rate
from aa_plugins.detectron2.weights import (
    AuditedCheckpointer,
    last_checkpoint,
    load_detectron2_weights,
    load_start,
    local_path,
)
from aa_plugins.diagnostics.finite import finite

logger = logging.getLogger(__name__)

# What an option of the command line sets in a config.
FLAGS_YAML = {"work_dir": "OUTPUT_DIR", "amp": "SOLVER.AMP.ENABLED"}
FLAGS_LAZY = {"work_dir": "train.output_dir", "amp": "train.amp.enabled"}


def launch(args: argparse.Namespace, lazy: bool) -> None:
    """What tools/train_net.py runs: `main` in `num_gpus` processes on each machine.

    Without GPUs the processes share the CPU, and evaluation alone can be divided among them.

    Args:
        args: as parsed by Detectron2's `default_argument_parser`, and those of `main`.
        lazy: whether the config file is a LazyConfig.

    Raises:
        ValueError, OSError: where an input is wrong, before any work is done.
    """
    if getattr(args, "launcher", "none") not in (None, "none"):
        raise ValueError(
            f"--launcher {args.launcher} is for MMSegmentation: Detectron2 starts its processes by "
            "itself, --num-gpus says how many"
        )
    processes.check_processes(args.num_gpus, training=not args.eval_only)
    if args.num_gpus * args.num_machines > 1:
        _load(args, lazy)  # what is wrong with it is said once
    machines = {key: getattr(args, key) for key in ("num_machines", "machine_rank", "dist_url")}
    processes.launch(main, args.num_gpus, args, lazy, **machines)


def main(args: argparse.Namespace, lazy: bool = False) -> dict[str, Any] | None:
    """Train, or with `args.eval_only` evaluate, the config of `args.config_file`.

    Args:
        args: config_file, opts, eval_only and resume; the others may lack: weights, data_root
            (where data sets lie), work_dir (the output folder), amp (mixed precision) and
            cfg_options (overrides KEY=VALUE).

    Returns:
        Results by task and metric, on the main process and where an evaluation ran.
    """
    cfg = _load(args, lazy)
    return _main_lazy(args, cfg) if lazy else _main_yaml(args, cfg)


def _load(args: argparse.Namespace, lazy: bool) -> CfgNode | DictConfig:
    """The config with what the command line says, its inputs checked."""
    if getattr(args, "data_root", None):
        use_data_root(args.data_root)
    given = list(getattr(args, "cfg_options", None) or [])
    flags = FLAGS_LAZY if lazy else FLAGS_YAML
    values = {key: value for key in flags if (value := getattr(args, key, None))}
    options = [*args.opts, *(given if lazy else pairs_of(given))]
    for key, value in values.items():
        options += [f"{flags[key]}={value}"] if lazy else [flags[key], str(value)]
    cfg = (load_lazy if lazy else load_yaml)(
        args.config_file, options, getattr(args, "weights", None)
    )
    weights = cfg.train.init_checkpoint if lazy else cfg.MODEL.WEIGHTS
    folder = cfg.train.output_dir if lazy else cfg.OUTPUT_DIR
    check_folder(folder)
    resumed = args.resume and last_checkpoint(folder)
    if weights and not resumed:
        local_path(weights)
    if args.eval_only and not (weights or resumed):
        raise ValueError(
            f"--eval-only without weights would test a random network: give --weights FILE, or "
            f"--resume for the last checkpoint of {folder}"
        )
    if not lazy:
        register_coco_paths(cfg)
        check_datasets([*cfg.DATASETS.TEST, *(() if args.eval_only else cfg.DATASETS.TRAIN)])
        if not (args.eval_only or cfg.DATASETS.TRAIN):
            raise ValueError(f"{args.config_file}: DATASETS.TRAIN is empty: name a data set")
        if args.eval_only and not cfg.DATASETS.TEST:
            raise ValueError(f"{args.config_file}: DATASETS.TEST is empty: name a data set")
    return cfg


class Trainer(DefaultTrainer):
    """Detectron2's trainer; filters train whatever is frozen around them.

    Raises:
        ValueError: where a data set doesn't fit the model, or nothing evaluates a test set.
    """

    def __init__(self, cfg: CfgNode):
        with processes.only_in_the_log():
            super().__init__(cfg)
        if cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu":
            self._trainer = CpuAmpTrainer(self.model, self.data_loader, self.optimizer)
        trainer = weakref.proxy(self)
        self.checkpointer = AuditedCheckpointer(self.model, cfg.OUTPUT_DIR, trainer=trainer)
        check_classes(cfg.DATASETS.TRAIN, self.model)
        check_tests(cfg, self.model)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        with processes.only_in_the_log():
            model = super().build_model(cfg)
        check_conversion(model, cfg)
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

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: list[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """As Detectron2's, but that predictions that aren't finite raise, naming the image."""
        with finite(unwrapped(model), names_of):
            return super().test(cfg, model, evaluators)

    def resume_or_load(self, resume: bool = True) -> None:
        """As Detectron2's, but that weights of another network are an error."""
        model = unwrapped(self.model)
        if start(model, self.cfg.OUTPUT_DIR, self.cfg.MODEL.WEIGHTS, resume):
            super().resume_or_load(resume=True)


def start(model: nn.Module, folder: str, weights: str, resume: bool) -> bool:
    """Load what a training starts from; True where it goes on from a checkpoint, to be loaded."""
    last = last_checkpoint(folder)
    if not (resume and last):
        if last:
            logger.warning(f"{last} is of an earlier run, which --resume would go on with")
        load_start(model, weights)
        return False
    untrained = load_detectron2_weights(model, last)
    if untrained:
        raise ValueError(
            f"{last} lacks the filter {untrained[0]}: resume with the config that it was made "
            "with, or train in another folder"
        )
    return True


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of what trains it on several GPUs."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def check_tests(cfg: CfgNode, model: nn.Module) -> None:
    """Raise ValueError where a test set is empty, or doesn't fit the model or any evaluator."""
    for name in cfg.DATASETS.TEST:
        images_of(name)
        check_evaluator(name)
    check_classes(cfg.DATASETS.TEST, model)


def build_evaluator(dataset_name: str, output_dir: str) -> DatasetEvaluator:
    """The evaluator that a dataset's metadata ask for: COCO's, or Cityscapes' own.

    Raises:
        NotImplementedError: for a dataset of another type.
    """
    check_evaluator(dataset_name)
    if MetadataCatalog.get(dataset_name).evaluator_type == "coco":
        return COCOEvaluator(dataset_name, output_dir=output_dir)
    return CityscapesEvaluator(dataset_name)


def check_evaluator(dataset_name: str) -> None:
    """Raise NotImplementedError, saying what to do, for a dataset that nothing here evaluates."""
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", None)
    if kind not in ("coco", "cityscapes_instance"):
        raise NotImplementedError(
            f"dataset {dataset_name!r} has evaluator_type={kind!r}: use one in COCO's format "
            "(DATASETS.COCO_PATHS) or Cityscapes instances, leave it out of DATASETS.TEST, or "
            "give a Trainer of your own a build_evaluator"
        )


def _setup(cfg: CfgNode | DictConfig, args: argparse.Namespace) -> None:
    folder = cfg.OUTPUT_DIR if isinstance(cfg, CfgNode) else cfg.train.output_dir
    processes.set_up_logging(folder)
    with processes.only_in_the_log():
        default_setup(cfg, args)


def _main_yaml(args: argparse.Namespace, cfg: CfgNode) -> dict[str, Any] | None:
    _setup(cfg, args)
    if not args.eval_only:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
        logger.info(f"{conversion(unwrapped(trainer.model))}; results are in {cfg.OUTPUT_DIR}")
        return getattr(trainer, "_last_eval_results", None)
    model = Trainer.build_model(cfg)
    check_tests(cfg, model)
    load_detectron2_weights(
        model, (args.resume and last_checkpoint(cfg.OUTPUT_DIR)) or cfg.MODEL.WEIGHTS
    )
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    logger.info(f"{conversion(model)}; results are in {cfg.OUTPUT_DIR}")
    return results


def _main_lazy(args: argparse.Namespace, cfg: DictConfig) -> dict[str, Any] | None:
    _setup(cfg, args)
    model = instantiated(cfg.model, "model").to(cfg.train.device)
    log_filters(model)
    test = functools.partial(_test_lazy, *_testing(cfg, model))
    folder = cfg.train.output_dir
    if args.eval_only:
        weights = (args.resume and last_checkpoint(folder)) or cfg.train.init_checkpoint
        load_detectron2_weights(model, weights)
        results = test(create_ddp_model(model))
    else:
        results = _train_lazy(cfg, model, test, resume=args.resume)
    logger.info(f"{conversion(model)}; results are in {folder}")
    return results


def _testing(cfg: DictConfig, model: nn.Module) -> tuple[Any, DatasetEvaluator]:
    """Loader and evaluator of a LazyConfig's test set, which are checked to fit."""
    loader = instantiated(cfg.dataloader.test, "dataloader.test")
    check_classes(names_in(cfg.dataloader.test), model)
    evaluated = cfg.dataloader.evaluator.get("dataset_name")
    check_datasets([evaluated] if isinstance(evaluated, str) else [])
    return loader, instantiated(cfg.dataloader.evaluator, "dataloader.evaluator")


def _test_lazy(loader: Any, evaluator: DatasetEvaluator, model: nn.Module) -> dict[str, Any]:
    with finite(unwrapped(model), names_of):
        results = inference_on_dataset(model, loader, evaluator)
    if comm.is_main_process():
        print_csv_format(results)
    return results


def _train_lazy(
    cfg: DictConfig,
    model: nn.Module,
    test: Callable[[nn.Module], dict[str, Any]],
    resume: bool,
) -> dict[str, Any] | None:
    cfg.optimizer.params.model = model
    optimizer = instantiated(cfg.optimizer, "optimizer")
    filters = cfg.train.filters
    set_filter_rate(optimizer, model, filters.lr_factor, filters.weight_decay)
    loader = instantiated(cfg.dataloader.train, "dataloader.train")
    check_classes(names_in(cfg.dataloader.train), model)
    resumed = start(model, cfg.train.output_dir, cfg.train.init_checkpoint, resume)
    model = create_ddp_model(model, **cfg.train.ddp)
    amp = CpuAmpTrainer if cfg.train.device == "cpu" else AMPTrainer
    trainer_class = amp if cfg.train.amp.enabled else SimpleTrainer
    trainer = trainer_class(model, loader, optimizer)
    checkpointer = AuditedCheckpointer(model, cfg.train.output_dir, trainer=trainer)
    results: dict[str, Any] = {}

    def evaluate() -> dict[str, Any] | None:
        results.update(test(model) or {})
        return results

    # None stands where a hook is for the main process alone.
    main = comm.is_main_process()
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter) if main else []
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiated(cfg.lr_multiplier, "lr_multiplier")),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if main else None,
            hooks.EvalHook(cfg.train.eval_period, evaluate),
            hooks.PeriodicWriter(writers, period=cfg.train.log_period) if main else None,
        ]
    )
    if resumed:
        checkpointer.resume_or_load("", resume=True)
    trainer.train(trainer.iter + 1 if resumed else 0, cfg.train.max_iter)
    return results or None
