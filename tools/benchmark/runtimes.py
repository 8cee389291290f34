"""Whole networks in the runtimes that people deploy, each beside the plain network there."""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from aa_plugins.export import export
from aa_plugins.export.formats import FORMATS, OpenVino
from aa_plugins.layers import fuse
from aa_plugins.surgery import antialias
from benchmark.measure import rounds_of

Rows = list[dict[str, Any]]

PRE = {"placement": "pre"}
VARIANTS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "blur": {"filter": "blur"},
    "blur, pre": {"filter": "blur", **PRE},
    "bank": {"filter": "bank"},
    "bank, pre": {"filter": "bank", **PRE},
    "adaptive": {},
    "adaptive, pre": PRE,
}
# A network, and whether its file has one size alone: Swin takes no other, and of EfficientNet-Lite0
# the borders depend on the size, which would count as nodes.
NETWORKS = {
    "resnet50": False,
    "resnet101": False,
    "tf_efficientnet_lite0": True,
    "convnext_tiny": False,
    "swin_tiny_patch4_window7_224": True,
}


def runtime_suite(rounds: int, device: str) -> Iterator[Rows]:
    """Inference on the CPU, batch 1: classifiers at 224×224, DeepLabv3+ at 512×1024, and of Mask
    R-CNN the backbone with its pyramid at 832×1088.

    Args:
        device: "cpu", as the command says before.
    """
    for name, fixed in NETWORKS.items():
        plain = timm.create_model(name).eval()
        yield _compare(f"{name}, 224×224", plain, torch.randn(1, 3, 224, 224), fixed, rounds)
    if find_spec("mmseg"):
        from benchmark.hosts import deeplab

        plain, x = deeplab("cpu")
        case = "DeepLabv3+ R-101, 512×1024"
        yield _compare(case, plain, x, False, rounds, lambda model: model.backbone)
    if find_spec("detectron2"):
        from benchmark.hosts import mask_rcnn

        x = torch.randn(1, 3, 832, 1088)
        case = "Mask R-CNN's R-101 and FPN, 832×1088"
        backbone = mask_rcnn("cpu")[0].backbone
        yield _compare(case, backbone, x, False, rounds, lambda model: model.bottom_up)


def _compare(
    case: str,
    plain: nn.Module,
    x: torch.Tensor,
    fixed: bool,
    rounds: int,
    backbone: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> Rows:
    """Every variant in every runtime."""
    threads = torch.get_num_threads()
    tasks: dict[tuple[str, str], Callable[[], Any]] = {}
    sizes: dict[tuple[str, str], dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for variant, config in VARIANTS.items():
            model = converted(plain, config, backbone)
            fuse(model)
            tasks["torch", variant] = _inference(model, x)
            graph = Path(folder) / "network.onnx"
            small = x if fixed else x[..., : x.shape[-2] // 2, : x.shape[-1] // 2]
            written = export(model, graph, small, fixed)
            for runtime, suffix in (("ONNX Runtime", ".onnx"), ("OpenVINO", ".xml")):
                path = graph.with_suffix(suffix)
                if suffix == ".xml":
                    OpenVino.convert(graph, path)
                run, nodes = FORMATS[suffix].open(path, threads), FORMATS[suffix].nodes(path)
                tasks[runtime, variant] = lambda run=run: run(x)
                sizes[runtime, variant] = {"nodes": nodes, "megabytes": written.size / 1e6}
        return rows_over_plain(case, tasks, sizes, rounds)


def converted(
    plain: nn.Module,
    config: dict[str, Any] | None,
    backbone: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> nn.Module:
    """The plain network with a configuration's filters, in eval mode; itself without one."""
    model = copy.deepcopy(plain)
    if config is not None:
        antialias(backbone(model), config)
    return model.eval()


def rows_over_plain(
    case: str,
    tasks: dict[tuple[str, str], Callable[[], Any]],
    sizes: dict[tuple[str, str], dict[str, float]],
    rounds: int,
) -> Rows:
    """A row a runtime and variant, from interleaved rounds."""
    seconds = rounds_of(tasks, rounds, what=case)
    rows = []
    for (runtime, variant), values in seconds.items():
        base = seconds[runtime, "plain"]
        rows.append(
            {
                "case": case,
                "runtime": runtime,
                "variant": variant,
                "minimum": min(values),
                "median": statistics.median(values),
                "rounds": rounds,
                # Of one round, in which both met the same machine.
                "over_plain": statistics.median(v / b for v, b in zip(values, base)),
                **sizes.get((runtime, variant), {}),
            }
        )
    return rows


def _inference(module: nn.Module, x: torch.Tensor) -> Callable[[], Any]:
    def run() -> Any:
        with torch.inference_mode():
            return module(x)

    return run
