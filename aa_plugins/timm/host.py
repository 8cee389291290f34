"""Classifiers of timm: "timm:NAME", plain or `aa_`."""

from __future__ import annotations

import timm
from timm.data import resolve_model_data_config

from aa_plugins.evaluation.stride import total_stride
from aa_plugins.hosts.interface import Request
from aa_plugins.hosts.module import PRETRAINED, ModuleNetwork, network_of

PREFIX = "timm:"


def load(request: Request) -> ModuleNetwork:
    """A classifier, its input prepared as timm's own configuration of it says.

    Raises:
        ValueError: for an unknown name, or another task.
    """
    name = request.network.removeprefix(PREFIX)
    if request.task not in (None, "classification"):
        raise ValueError(f"{request.network} is a classifier: leave task={request.task!r} out")
    options = {} if request.classes is None else {"num_classes": request.classes}
    if name.startswith("aa_"):
        import aa_plugins.timm  # noqa: F401  only registration

        options["aa"] = request.aa
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}: timm.list_models() lists them")
    model = timm.create_model(name, pretrained=request.weights == PRETRAINED, **options)
    config = resolve_model_data_config(model)
    return network_of(
        model,
        "classification",
        request,
        num_classes=model.num_classes,
        stride=_stride(model),
        size=tuple(config["input_size"][1:]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _stride(model) -> int:
    """S: measured, or where an input has one size only as timm's own description of the maps."""
    try:
        return total_stride(model)
    except (AssertionError, RuntimeError):
        return max(info["reduction"] for info in model.feature_info)
