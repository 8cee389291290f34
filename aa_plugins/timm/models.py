"""`aa_<name>` for timm's models: built and loaded by timm, then anti-aliased in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import timm
import torch
from timm.models import (
    FeatureGraphNet,
    generate_default_cfgs,
    get_arch_pretrained_cfgs,
    model_entrypoint,
    register_model,
    register_notrace_module,
)
from torch import nn

from aa_plugins.config import AAConfig
from aa_plugins.layers.kinds import filter_classes
from aa_plugins.surgery import antialias
from aa_plugins.timm.antialiased import become_antialiased
from aa_plugins.timm.weights import load_filters, without_filters

# timm's modules of transformers and mixers that reduce by a patch embedding only, which is no site.
PATCH_EMBEDDING_ONLY = (
    "beit",
    "cait",
    "convit",
    "convmixer",
    "crossvit",
    "deepseek_vit",
    "deit",
    "eva",
    "gemma4_vit",
    "mlp_mixer",
    "naflexvit",
    "qwen3_vit",
    "vision_transformer",
    "vision_transformer_relpos",
    "vision_transformer_sam",
)
# Before this file becomes one of them.
TIMM_MODULES = tuple(timm.models.list_modules())
# Those whose models all get an `aa_<name>`.
MODULES = tuple(name for name in TIMM_MODULES if name not in PATCH_EMBEDDING_ONLY)
PREFIX = "aa_"

# timm reads the pretrained configurations of a registered model here.
default_cfgs: dict[str, Any] = {}


def register_all() -> None:
    """Register `aa_<name>` for every model of `MODULES`; its weights are the plain model's."""
    for layer in filter_classes().values():
        register_notrace_module(layer)  # padding looks at the size of the map
    for name in timm.list_models(module=MODULES):
        cfgs = get_arch_pretrained_cfgs(name)
        default_cfgs.update(generate_default_cfgs({PREFIX + key: cfg for key, cfg in cfgs.items()}))
        register_model(_entrypoint(name))


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build(name, pretrained, **kwargs)

    create.__name__ = create.__qualname__ = PREFIX + name
    create.__doc__ = f"timm's {name}, anti-aliased as `aa` says: see `build`."
    return create


def build(
    name: str,
    pretrained: bool = False,
    aa: AAConfig | Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build timm's model `name`, load its weights if asked, and anti-alias it.

    The model accepts a checkpoint of the plain model, under strict=True too, and its `aa_report`
    says what was converted. With features_only=True the maps are NCHW, also for models whose maps
    are NHWC in timm.

    Args:
        name: of the plain model, without tag.
        pretrained: load timm's weights of the plain model before the conversion, or what
            `pretrained_cfg` and its overlay name: weights of a plain or of a converted model.
        aa: which filter, and where.
        kwargs: what the plain model takes (num_classes, in_chans, features_only, …).

    Raises:
        ValueError: where `aa` doesn't fit, or there is nothing to convert.
    """
    config = AAConfig.of(aa)
    create, filters = model_entrypoint(name), {}
    if pretrained:
        kwargs, filters = without_filters(kwargs)
    if kwargs.get("feature_cls") in ("fx", FeatureGraphNet):
        # A traced graph has no blocks left to find sites in: convert before the trace.
        kwargs["feature_cls"] = partial(_convert_and_trace, config, dict(kwargs))
        model = create(pretrained=pretrained, **kwargs)
    else:
        model = create(pretrained=pretrained, **kwargs)
        model.aa_report = antialias(model, config, example=_example(model, kwargs))
    if filters:
        load_filters(model, filters)
    model.pretrained_cfg["architecture"] = PREFIX + name  # what a saved configuration rebuilds
    become_antialiased(model)
    return model


def _convert_and_trace(
    config: AAConfig, kwargs: Mapping[str, Any], model: nn.Module, **options: Any
) -> FeatureGraphNet:
    report = antialias(model, config, example=_example(model, kwargs))
    traced = FeatureGraphNet(model, **options)
    traced.aa_report = report
    return traced


def _example(model: nn.Module, kwargs: Mapping[str, Any]) -> torch.Tensor:
    """An input that a model built with `kwargs` takes; its values don't count."""
    channels, *size = model.pretrained_cfg.get("input_size", (3, 224, 224))
    size = kwargs.get("img_size", size)
    height, width = (size, size) if isinstance(size, int) else size
    like = next(model.parameters())
    return like.new_empty(1, kwargs.get("in_chans", channels), height, width)
