"""What anti-aliasing does to a timm model: sites, equality, cost, training, compilers."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.models import list_models
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from aa_plugins.config import AAConfig
from aa_plugins.diagnostics import awaken, calibrate, maps_of, relative_difference
from aa_plugins.layers import PredictedFilter, filters_of
from aa_plugins.surgery import antialias, filter_keys

# Every site, and the padding to export with.
EVERYWHERE = AAConfig(init="identity", pad_mode="replicate", stem=True)
ONNX_SESSION = {"providers": ["CPUExecutionProvider"]}
# A size with odd maps: the first that a model takes, if it takes any but its own.
ODD_SIZES = ((113, 127), (116, 132))


def smallest_model(module: str) -> str:
    """The model of a timm module with the fewest parameters."""
    return min(list_models(module=module), key=count_parameters)


def count_parameters(name: str) -> int:
    """Parameters of a timm model, which is built without memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(name).parameters())


def check_sites(name: str) -> dict[str, Any]:
    """What `antialias` finds: nothing is converted, and nothing is computed."""
    report = antialias(timm.create_model(name), EVERYWHERE, dry_run=True)
    return {
        "model": name,
        "parameters": count_parameters(name),
        "converted": len(report.sites),
        "denied": len(report.skipped),
        "reasons": sorted({row.reason for row in report.skipped}),
        "extra_parameters": sum(site.parameters for site in report.sites),
    }


def check_identity(name: str) -> dict[str, Any]:
    """Outputs of the plain and of the converted model, at the default size and with odd maps."""
    plain, images = specimen(name)
    converted = convert(plain)
    odd = odd_images(plain)
    small = images if odd is None else odd
    blurred = convert(plain, AAConfig(filter="blur", stem=True))
    with torch.no_grad():
        with count_macs(plain) as macs:
            output = plain(images)
        with count_macs(converted) as converted_macs:
            difference = relative_difference(converted(images), output)
        reference = plain(small)
        return {
            "difference": difference,
            "odd_difference": odd is not None and relative_difference(converted(odd), reference),
            "roll": relative_difference(plain(small.roll(1, 3)), reference),
            "blur": relative_difference(blurred(small), reference),
            "macs": macs[0],
            "extra_macs": converted_macs[0] - macs[0],
        }


def check_features(name: str) -> dict[str, Any]:
    """Stage features of the plain and of the converted model, through timm's `features_only`."""
    plain, images = specimen(name, features_only=True)
    converted = convert(plain)
    odd = odd_images(plain)
    small = images if odd is None else odd
    with torch.no_grad():
        reference = plain(small)
        return {
            "features_only": True,
            "feature_difference": relative_difference(converted(small), reference),
            "feature_roll": relative_difference(plain(small.roll(1, 3)), reference),
        }


def check_training(name: str) -> dict[str, Any]:
    """Two steps of gradient descent: the filters with a finite gradient, and those that moved."""
    plain, images = specimen(name, batch=2)
    model = convert(plain).train()
    odd = odd_images(plain)
    images = images if odd is None else odd
    before = copy.deepcopy(dict(filters_of(model)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    finite = set(before)
    for _ in range(2):
        loss = sum(output.float().square().mean() for output in maps_of(model(images)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        finite -= {n for n, layer in filters_of(model) if not _has_finite_gradients(layer)}
    moved = [n for n, layer in filters_of(model) if _all_moved(layer, before[n])]
    return {"finite_filters": len(finite), "moved_filters": len(moved)}


def check_compile(name: str) -> dict[str, Any]:
    """`torch.compile(fullgraph=True)`, which refuses graph breaks, with the graph run as it is."""
    model, images, expected = _opened(name)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        return {"compile": relative_difference(compiled(images), expected)}


def check_export(name: str) -> dict[str, Any]:
    """`torch.export`, then ONNX of the same program, run by onnxruntime."""
    import onnxruntime

    model, images, expected = _opened(name)
    with torch.no_grad():
        program = torch.export.export(model, (images,))
        row = {"export": relative_difference(program.module()(images), expected)}
        file = io.BytesIO()
        try:
            torch.onnx.export(program, (), file, verbose=False)
            session = onnxruntime.InferenceSession(file.getvalue(), **ONNX_SESSION)
            outputs = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        except Exception as error:  # the exporter's many errors are a result here
            return row | {"onnx_error": repr(error)[:200]}
    return row | {"onnx": relative_difference([*map(torch.from_numpy, outputs)], expected)}


CHECKS: dict[str, Callable[[str], dict[str, Any]]] = {
    "sites": check_sites,
    "identity": check_identity,
    "features": check_features,
    "training": check_training,
    "compile": check_compile,
    "export": check_export,
}


@lru_cache(maxsize=1)
def _specimen(name: str, **kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, **kwargs).eval()
    awaken(model, torch.Generator().manual_seed(0))
    images = odd_images(model)
    calibrate(model, _images(2, *_input_size(name)) if images is None else images)
    return model


def specimen(name: str, batch: int = 1, **kwargs: Any) -> tuple[nn.Module, torch.Tensor]:
    """A timm model in eval mode with nothing in it that hides an error, and images for it."""
    return _specimen(name, **kwargs), _images(batch, *_input_size(name))


def odd_images(model: nn.Module) -> torch.Tensor | None:
    """Two images with odd maps that a model takes, or None where its size is fixed."""
    for size in ODD_SIZES:
        images = _images(2, 3, *size)
        try:
            with torch.no_grad():
                model(images[:1])
        except Exception:  # any error of any network: it doesn't take this size
            continue
        return images
    return None


def convert(plain: nn.Module, config: AAConfig = EVERYWHERE) -> nn.Module:
    """A converted copy of a model, checked to hold the plain keys and those of its filters.

    Raises:
        ValueError: where any other key changed.
    """
    model = copy.deepcopy(plain)
    antialias(model, config)
    changed = set(model.state_dict()) ^ set(plain.state_dict())
    if changed != filter_keys(model):
        raise ValueError(f"keys changed: {sorted(changed - filter_keys(model))[:3]}")
    return model


@contextmanager
def count_macs(model: nn.Module) -> Iterator[list[int]]:
    """Multiply-accumulates of the forward passes inside, in the list once they are done.

    Convolutions and matrix products, as torch's counter sees them, and the k² taps that a
    predicted filter applies at each kept position.
    """
    total: list[int] = []
    taps: list[int] = []

    def count_taps(layer: PredictedFilter, _: Any, output: torch.Tensor) -> None:
        taps.append(output.numel() * layer.kernel_size**2)

    hooks = [layer.register_forward_hook(count_taps) for _, layer in filters_of(model)]
    try:
        with FlopCounterMode(display=False) as counter:
            yield total
    finally:
        for hook in hooks:
            hook.remove()
    total.append(counter.get_total_flops() // 2 + sum(taps))


def _opened(name: str) -> tuple[nn.Module, torch.Tensor, Any]:
    """A converted model whose filters do filter, images, and what it computes from them."""
    plain, images = specimen(name)
    model = convert(plain)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, layer in filters_of(model):
            layer.gate.uniform_(0.2, 0.8, generator=generator)
        return model, images, model(images)


def _has_finite_gradients(layer: nn.Module) -> bool:
    return all(p.grad is not None and bool(p.grad.isfinite().all()) for p in layer.parameters())


def _all_moved(layer: nn.Module, before: nn.Module) -> bool:
    pairs = zip(layer.parameters(), before.parameters())
    return all(not torch.equal(after, start) for after, start in pairs)


def _input_size(name: str) -> tuple[int, int, int]:
    return tuple(timm.get_pretrained_cfg(name).input_size)


def _images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
