"""What is measured: the layer, networks, hosts' networks, and the evaluation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import timm
import torch
from timm.layers import BlurPool2d as TimmBlurPool2d
from torch import nn

from aa_plugins.diagnostics.cost import count_macs
from aa_plugins.evaluation import SemanticConsistency, preset
from aa_plugins.layers import AdaptiveBlurPool2d, BlurPool2d, FilterBankPool2d, fuse
from aa_plugins.ops import adaptive_blur2d
from aa_plugins.surgery import antialias
from benchmark.compiled import compiled_suite
from benchmark.measure import Timing, in_new_process, interleaved, peak_growths
from benchmark.published import PublishedFilter, replace_filters
from benchmark.runtimes import runtime_suite

Rows = list[dict[str, Any]]
Task = Callable[[], Any]

LAYER_SHAPES = ((2, 256, 100, 152), (1, 64, 200, 304), (1, 512, 50, 76))
NETWORKS = ("resnet101", "convnext_tiny", "swin_tiny_patch4_window7_224")
LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "published formula": PublishedFilter,
    "adaptive": AdaptiveBlurPool2d,
    "adaptive, separable": lambda channels: AdaptiveBlurPool2d(channels, predictor="separable"),
    "bank": FilterBankPool2d,
    "fixed blur": BlurPool2d,
    "fixed blur of timm": lambda channels: TimmBlurPool2d(channels, stride=2),
    "fused op alone": lambda channels: FusedOpAlone(),
    "copy": lambda channels: Copy(),
}
NETWORK_VARIANTS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "fixed blur": {"filter": "blur"},
    "fixed blur, pre": {"filter": "blur", "placement": "pre"},
    "adaptive": {},
    "adaptive, separable": {"predictor": "separable"},
    "bank": {"filter": "bank"},
    "published formula": {},
}


class FusedOpAlone(nn.Module):
    """The filter with given logits (8 groups, 3×3): what is left without a predictor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "logits") or self.logits.device != x.device:
            n, _, height, width = x.shape
            self.logits = torch.randn(n, 8, 9, -(-height // 2), -(-width // 2), device=x.device)
        return adaptive_blur2d(x, self.logits, softmax=True)


class Copy(nn.Module):
    """A copy of the input, the measure of the machine's memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()


def layer_suite(rounds: int, device: str) -> Iterator[Rows]:
    """Forward and forward + backward of single layers, k = 3, 8 groups, float32.

    Each case has a process of its own: memory that an earlier case left to the allocator spares
    the larger tensors of a later one the system's page faults, up to half of their time.
    """
    for shape in LAYER_SHAPES:
        for backward in (False, True):
            case = f"{shape} {'forward + backward' if backward else 'forward'}"
            threads = torch.get_num_threads()
            timings = in_new_process(_layer_timings, case, shape, backward, rounds, device, threads)
            rows = [_row(case, variant, timing) for variant, timing in timings.items()]
            if backward and device == "cpu":
                calls = [(variant, shape) for variant in LAYERS]
                for row, growth in zip(rows, peak_growths(warm_layer_task, calls)):
                    row["peak_mebibytes"] = growth
            for row in rows:
                row["faster_than_published"] = _ratio(timings["published formula"], row)
                if row["variant"] == "fused op alone" and not backward:
                    n, channels, height, width = shape
                    kept = -(-height // 2) * -(-width // 2)
                    moved = n * (channels * (height * width + kept) + 72 * kept)
                    copied = 2 * n * channels * height * width
                    share = moved / row["minimum"] * timings["copy"].minimum / copied
                    row["of_copy_bandwidth"] = share
            yield rows


def _layer_timings(
    case: str, shape: tuple[int, ...], backward: bool, rounds: int, device: str, threads: int
) -> dict[str, Timing]:
    torch.set_num_threads(threads)
    tasks = {variant: layer_task(variant, shape, backward, device) for variant in LAYERS}
    return interleaved(tasks, rounds, device, case)


def layer_task(variant: str, shape: tuple[int, ...], backward: bool, device: str = "cpu") -> Task:
    """What to time: one call of the layer on a random input, or with its gradients."""
    torch.manual_seed(0)
    layer = LAYERS[variant](shape[1]).to(device).train(backward)
    x = torch.randn(shape, device=device, requires_grad=backward)
    return training_step(layer, x) if backward else inference(layer, x)


def warm_layer_task(variant: str, shape: tuple[int, ...]) -> Task:
    """A training step of a layer that has met a small map before.

    What the libraries load and allocate once, whatever the map's size, isn't the layer's memory.
    """
    layer_task(variant, (1, shape[1], 8, 8), backward=True)()
    return layer_task(variant, shape, backward=True)


def network_suite(rounds: int, device: str) -> Iterator[Rows]:
    """Inference at 224×224, batch 1; the filters' norms are folded."""
    for name in NETWORKS:
        plain = timm.create_model(name).to(device).eval()
        x = torch.randn(1, 3, 224, 224, device=device)
        yield _compare(f"{name}, 224×224", plain, lambda model: model, x, rounds, device)


def host_suite(rounds: int, device: str) -> Iterator[Rows]:
    """Inference of DeepLabv3+ R-101 and Mask R-CNN R-101-FPN where their hosts are installed."""
    if find_spec("mmseg"):
        from benchmark.hosts import deeplab

        plain, x = deeplab(device)
        case = "DeepLabv3+ R-101, 512×1024"
        yield _compare(case, plain, lambda model: model.backbone, x, rounds, device)
    if find_spec("detectron2"):
        from benchmark.hosts import mask_rcnn

        plain, x = mask_rcnn(device)
        case = "Mask R-CNN R-101-FPN, 832×1088"
        yield _compare(case, plain, lambda model: model.backbone.bottom_up, x, rounds, device)


def training_suite(rounds: int, device: str) -> Iterator[Rows]:
    """A training step of EfficientNet-Lite0, 4 images of 192×192, filters of 5 taps."""
    x = torch.randn(4, 3, 192, 192, device=device)
    tasks = {}
    for variant, config in NETWORK_VARIANTS.items():
        if variant == "published formula":
            continue
        model = timm.create_model("tf_efficientnet_lite0")
        if config is not None:
            antialias(model, {"kernel_size": 5, **config})
        tasks[variant] = training_step(model.to(device).train(), x.clone().requires_grad_())
    case = "tf_efficientnet_lite0, training step of 4×192×192, 5 taps"
    timings = interleaved(tasks, rounds, device, case)
    rows = [_row(case, variant, timing) for variant, timing in timings.items()]
    for row in rows:
        row["over_plain"] = row["median"] / timings["plain"].median
    yield rows


def evaluation_suite(rounds: int, device: str) -> Iterator[Rows]:
    """What scoring the views of one image costs beside the network (19 classes, 512×1024)."""
    protocol = preset("zou")
    plan = protocol.plan(512, 1024, "benchmark")
    labels = torch.randint(0, 19, (512, 1024))
    predictions = [labels[view.crop.slices] for view in plan.views]
    scorer = SemanticConsistency(protocol, 19)
    tasks = {f"{len(plan.views)} views": lambda: scorer.score(plan, predictions)}
    case = "semantic consistency of 512×1024"
    yield [_row(case, name, t) for name, t in interleaved(tasks, rounds, "cpu", case).items()]


SUITES: dict[str, Callable[[int, str], Iterator[Rows]]] = {
    "layer": layer_suite,
    "network": network_suite,
    "host": host_suite,
    "evaluation": evaluation_suite,
    "runtime": runtime_suite,
    "compiled": compiled_suite,
    "training": training_suite,
}


# By how many times the adaptive layer's forward has to be faster than the published formula.
LAYER_BAR = 10.0


def below_the_bar(rows: Rows) -> list[str]:
    """What of the rows misses what this package promises, in words."""
    return [
        f"{row['case']}: {row['faster_than_published']:.1f} × the published formula, less than "
        f"{LAYER_BAR:.0f}"
        for row in rows
        if row["suite"] == "layer"
        and row["variant"] == "adaptive"
        and row["case"].endswith(" forward")
        and row["faster_than_published"] < LAYER_BAR
    ]


def inference(module: nn.Module, x: Any) -> Task:
    """A call without gradients."""

    def run() -> Any:
        with torch.inference_mode():
            return module(x)

    return run


def training_step(module: nn.Module, x: torch.Tensor) -> Task:
    """A call and the gradients of input and parameters."""

    def run() -> None:
        x.grad = None
        y = module(x)
        y.backward(torch.ones_like(y))

    return run


def _compare(
    case: str,
    plain: nn.Module,
    backbone: Callable[[nn.Module], nn.Module],
    x: Any,
    rounds: int,
    device: str,
) -> Rows:
    tasks, macs = {}, {}
    for variant, config in NETWORK_VARIANTS.items():
        model = copy.deepcopy(plain)
        if config is not None:
            antialias(backbone(model), config)
        if variant == "published formula":
            replace_filters(model)
        fuse(model)
        tasks[variant] = inference(model.to(device), x)
        with count_macs(model) as counted:
            tasks[variant]()
        macs[variant] = counted[0] / 1e9
    timings = interleaved(tasks, rounds, device, case)
    rows = [_row(case, variant, timing) for variant, timing in timings.items()]
    for row in rows:
        row["over_plain"] = row["minimum"] / timings["plain"].minimum
        row["faster_than_published"] = _ratio(timings["published formula"], row)
        row["gigamacs"] = macs[row["variant"]]
    return rows


def _row(case: str, variant: str, timing: Timing) -> dict[str, Any]:
    return {"case": case, "variant": variant, **vars(timing)}


def _ratio(published: Timing, row: dict[str, Any]) -> float:
    return published.minimum / row["minimum"]
