"""What anti-aliasing does to a timm model: sites, equality, cost, training, compilers."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.models import list_models
from torch import nn

from aa_plugins.config import AAConfig
from aa_plugins.diagnostics.cost import count_macs
from aa_plugins.diagnostics.equivalence import batch_norms, calibrate, perturb, relative_difference
from aa_plugins.layers import filters_of
from aa_plugins.surgery import antialias, filter_keys
from aa_plugins.timm.antialiased import become_antialiased

# Every site, and the padding to export with.
EVERYWHERE = AAConfig(init="identity", pad_mode="replicate", stem=True)
BEFORE = replace(EVERYWHERE, placement="pre")
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
    model = _built(name)
    report = antialias(model, EVERYWHERE, dry_run=True)
    return {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "converted": len(report.sites),
        "denied": len(report.skipped),
        "reasons": sorted({row.reason for row in report.skipped}),
        "extra_parameters": sum(site.parameters for site in report.sites),
    }


def check_identity(name: str) -> dict[str, Any]:
    """Outputs of the plain and of the converted model, at the default size and with odd maps.

    What would hide a difference is counted: parameters that are constant, batch norms that have
    seen no image. A shift of the images by a pixel, and a blur, have to show.
    """
    plain, converted, images = specimen(name)
    odd = odd_images(plain)
    small = images if odd is None else odd
    blurred = convert(plain, AAConfig(filter="blur", stem=True))
    with torch.no_grad():
        with count_macs(plain) as macs:
            output = plain(images)
        with count_macs(converted) as converted_macs:
            difference = _difference(converted(images), output)
        reference = output if odd is None else plain(odd)
        return {
            "difference": difference,
            "odd_difference": odd is not None and _difference(converted(odd), reference),
            "roll": _difference(plain(small.roll(1, 3)), reference),
            "blur": _difference(blurred(small), reference),
            "largest_output": max(float(output.abs().max()) for output in maps_of(output)),
            "constant_parameters": sum(map(_is_constant, plain.parameters())),
            "batch_norms": len(batch_norms(plain)),
            "uncalibrated_batch_norms": sum(map(_is_uncalibrated, batch_norms(plain))),
            "macs": macs[0],
            "extra_macs": converted_macs[0] - macs[0],
        }


def check_features(name: str) -> dict[str, Any]:
    """Stage features of the plain and of the converted model, through timm's `features_only`.

    Whether the maps that `aa_<name>` hands out are (N, C, H/stride, W/stride), with channels and
    strides as its `feature_info` says, is checked at the default size.
    """
    plain, converted, images = specimen(name, features_only=True)
    odd = odd_images(plain)
    small = images if odd is None else odd
    strides = plain.feature_info.reduction()
    with torch.no_grad():
        reference = plain(small)
        row = {
            "features_only": True,
            "feature_difference": _difference(converted(small), reference),
            "feature_roll": _difference(plain(small.roll(1, 3)), reference),
        }
        become_antialiased(converted)
        maps = converted(images)
    row["strides"] = strides
    row["maps_as_announced"] = all(
        map_.shape[1] == channels and _is_divided(images.shape[2:], stride, map_.shape[2:])
        for map_, channels, stride in zip(maps, plain.feature_info.channels(), strides, strict=True)
    )
    return row


def check_training(name: str) -> dict[str, Any]:
    """Two steps of Adam: how many filters had finite gradients, and how many moved altogether."""
    plain, converted, images = specimen(name)
    return _two_steps(converted, _two_images(plain, images))


def check_placement(name: str) -> dict[str, Any]:
    """All of that with filters before strided convolutions, which keep their strides."""
    plain, _, images = specimen(name)
    before = convert(plain, BEFORE)
    blurred = convert(plain, replace(BEFORE, filter="blur"))
    small = _two_images(plain, images)
    with torch.no_grad():
        with count_macs(plain) as macs:
            reference = plain(small[:1])
        with count_macs(before) as macs_before:
            difference = _difference(before(small[:1]), reference)
        with count_macs(blurred) as macs_blurred:
            blur = _difference(blurred(small[:1]), reference)
    trained = _two_steps(before, small)
    return {
        "pre_torch": torch.__version__,
        "pre_converted": sum(1 for _ in filters_of(before)),
        "pre_difference": difference,
        "pre_blur": blur,
        "pre_macs": macs_before[0] / macs[0] - 1,
        "pre_blur_macs": macs_blurred[0] / macs[0] - 1,
        **{f"pre_{key}": count for key, count in trained.items()},
    }


def _two_images(plain: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Two images with odd maps, or of the model's own size where it takes no other."""
    odd = odd_images(plain)
    return torch.cat((images, images.flip(3))) if odd is None else odd


def _two_steps(converted: nn.Module, images: torch.Tensor) -> dict[str, int]:
    """Two steps of Adam: how many filters had finite gradients, and how many moved altogether."""
    model = copy.deepcopy(converted).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    finite = {filter_name for filter_name, _ in filters_of(model)}
    for _ in range(2):
        loss = sum(output.float().square().mean() for output in maps_of(model(images)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        finite -= {n for n, layer in filters_of(model) if not _has_finite_gradients(layer)}
    pairs = zip(filters_of(model), filters_of(converted))
    moved = [after_name for (after_name, after), (_, start) in pairs if _all_moved(after, start)]
    return {"finite_filters": len(finite), "moved_filters": len(moved)}


def check_rounding(name: str) -> dict[str, Any]:
    """How far rounding to float32 takes the outputs: what no translation can be blamed for."""

    def in_double(model: nn.Module, images: torch.Tensor) -> Any:
        outputs = maps_of(copy.deepcopy(model).double()(images.double()))
        return [output.float() for output in outputs]

    return _translated(name, "rounding", in_double)


def check_compile(name: str) -> dict[str, Any]:
    """`torch.compile(fullgraph=True)`, which refuses graph breaks, with the graph run as it is."""

    def compiled(model: nn.Module, images: torch.Tensor) -> Any:
        torch._dynamo.reset()
        return torch.compile(model, fullgraph=True, backend="eager")(images)

    return _translated(name, "compile", compiled)


def check_export(name: str) -> dict[str, Any]:
    """`torch.export`."""

    def exported(model: nn.Module, images: torch.Tensor) -> Any:
        return torch.export.export(model, (images,), strict=False).module()(images)

    return _translated(name, "export", exported)


def check_onnx(name: str) -> dict[str, Any]:
    """ONNX, run by onnxruntime; the exporter's optimizer, which takes longest, is left out."""
    import onnx
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # no word on each constant that it can't fold
    opsets = set()

    def through_onnx(model: nn.Module, images: torch.Tensor) -> Any:
        file = io.BytesIO()
        torch.onnx.export(model, (images,), file, dynamo=True, verbose=False, optimize=False)
        graph = onnx.load_from_string(file.getvalue())
        opsets.update(entry.version for entry in graph.opset_import if not entry.domain)
        session = onnxruntime.InferenceSession(file.getvalue(), **ONNX_SESSION)
        outputs = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        return [*map(torch.from_numpy, outputs)]

    return _translated(name, "onnx", through_onnx) | {"opset": max(opsets, default=None)}


def _translated(
    name: str, column: str, run: Callable[[nn.Module, torch.Tensor], Any]
) -> dict[str, Any]:
    """What the converted model computes after a translation; if that fails, whether ours is why."""
    plain, model, image, expected = _opened(name)
    with torch.no_grad():
        try:
            return {column: _difference(run(model, image), expected)}
        except Exception as error:  # a compiler's many errors are a result here
            row = {f"{column}_error": summary(error)}
        try:
            run(plain, image)
        except Exception as error:
            row[f"{column}_error_of_plain"] = summary(error)
        return row


@lru_cache(maxsize=1)
def _opened(name: str) -> tuple[nn.Module, nn.Module, torch.Tensor, Any]:
    """A plain and a converted model whose filters do filter, the smallest image, the output."""
    plain, converted, _ = specimen(name)
    images = odd_images(plain)
    images = _images(2, *_input_size(name)) if images is None else images
    model = copy.deepcopy(converted)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, layer in filters_of(model):
            layer.gate.uniform_(0.2, 0.8, generator=generator)
        calibrate(model, images)  # or rounding errors would grow where a channel hardly varied
        return plain, model, images[:1], model(images[:1])


def summary(error: Exception) -> str:
    """What an error began with, in a line of a table."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


CHECKS: dict[str, Callable[[str], dict[str, Any]]] = {
    "sites": check_sites,
    "identity": check_identity,
    "training": check_training,
    "placement": check_placement,
    "rounding": check_rounding,
    "compile": check_compile,
    "export": check_export,
    "onnx": check_onnx,
    "features": check_features,
}


@lru_cache(maxsize=1)
def _built(name: str, **kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, **kwargs).eval()


@lru_cache(maxsize=1)
def _pair(name: str, **kwargs: Any) -> tuple[nn.Module, nn.Module]:
    plain = _built(name, **kwargs)
    images = odd_images(plain)
    perturb(plain, _images(2, *_input_size(name)) if images is None else images)
    return plain, convert(plain)


def specimen(name: str, **kwargs: Any) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """A plain timm model in which nothing hides an error, it converted, and an image for both."""
    return *_pair(name, **kwargs), _images(1, *_input_size(name))


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


def _is_divided(size: torch.Size, stride: int, map_size: torch.Size) -> bool:
    """Whether a map has the size that `stride` makes of an image, but for borders not padded."""
    pairs = zip(size, map_size, strict=True)
    return all(abs(math.log2(whole / part / stride)) < 0.5 for whole, part in pairs)


def _is_constant(parameter: nn.Parameter) -> bool:
    return parameter.numel() > 1 and bool(parameter.min() == parameter.max())


def _is_uncalibrated(norm: nn.Module) -> bool:
    if not norm.track_running_stats:
        return False
    return not norm.running_mean.any() or bool((norm.running_var == 1).all())


def _has_finite_gradients(layer: nn.Module) -> bool:
    return all(p.grad is not None and bool(p.grad.isfinite().all()) for p in layer.parameters())


def maps_of(output: Any) -> list[torch.Tensor]:
    """The tensors of a network's output: a tensor, or lists and mappings of them."""
    if isinstance(output, torch.Tensor):
        return [output]
    values = output.values() if isinstance(output, Mapping) else output
    return [tensor for value in values for tensor in maps_of(value)]


def _difference(output: Any, reference: Any) -> float:
    return relative_difference(maps_of(output), maps_of(reference))


def _all_moved(layer: nn.Module, before: nn.Module) -> bool:
    pairs = zip(layer.parameters(), before.parameters())
    return all(not torch.equal(after, start) for after, start in pairs)


def _input_size(name: str) -> tuple[int, int, int]:
    return tuple(timm.get_pretrained_cfg(name).input_size)


def _images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
