"""A checkpoint of an anti-aliased model, given to timm as `pretrained`.

timm loads it into the plain model, before there is any filter: so the filters' part is taken out
first, and loaded when they are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from timm.models import load_state_dict_from_hf
from torch import nn

from aa_plugins.checkpoints import (
    AVERAGES,
    ENTRIES,
    State,
    check_finite,
    read_checkpoint,
    weights_in,
)
from aa_plugins.layers import filters_of

MARKERS = (".prefilter.", ".postfilter.")


def without_filters(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, State]]:
    """Split the checkpoint that `kwargs` of a pretrained model name, if they name one.

    Args:
        kwargs: arguments of timm's entry points; a checkpoint is given by `file`, `state_dict` or
            `source` in `pretrained_cfg` or its overlay. What timm itself hosts has no filters.

    Returns:
        Arguments that load the plain part, and the state of each filter by its name.
    """
    given = kwargs.get("pretrained_cfg")
    overlay = dict(kwargs.get("pretrained_cfg_overlay") or {})
    given = asdict(given) if is_dataclass(given) else given
    state = _read({**(given if isinstance(given, Mapping) else {}), **overlay}, kwargs)
    filters: dict[str, dict[str, Any]] = {}
    for key, value in state.items():
        marker = next((marker for marker in MARKERS if marker in key), None)
        if marker is not None:
            name, _, entry = key.partition(marker)
            filters.setdefault(name + marker[:-1], {})[entry] = value
    if not filters:
        return dict(kwargs), {}
    plain = {key: v for key, v in state.items() if not any(marker in key for marker in MARKERS)}
    overlay.update(state_dict=plain, source="")
    return {**kwargs, "pretrained_cfg_overlay": overlay}, filters


def load_filters(model: nn.Module, filters: Mapping[str, State]) -> None:
    """Load the state of each filter by name; feature extractors rename: `stages.1` to `stages_1`.

    Raises:
        ValueError: for a filter of `model` that is not among `filters`, or where it has none.
    """
    layers = list(filters_of(model))
    if not layers:
        raise ValueError(f"the checkpoint holds filters ({', '.join(filters)}), the model none")
    for name, layer in layers:
        matching = [other for other in filters if _flat(name).endswith(_flat(other))]
        if not matching:
            raise ValueError(
                f"the checkpoint has no filter {name!r} but {', '.join(filters)}: was it trained "
                "with another AAConfig?"
            )
        layer.load_state_dict(filters[max(matching, key=len)])


def _read(source: Mapping[str, Any], kwargs: Mapping[str, Any]) -> State:
    """The state dict that a pretrained configuration gives, or {} where timm's own is meant."""
    if source.get("state_dict"):
        return source["state_dict"]
    if source.get("source") == "hf-hub":
        return load_state_dict_from_hf(source["hf_hub_id"], cache_dir=kwargs.get("cache_dir"))
    if source.get("file") and Path(source["file"]).is_dir():
        from timm.models._hub import load_state_dict_from_path

        return load_state_dict_from_path(source["file"])
    file = source.get("file")
    if not file or Path(file).suffix in (".npz", ".npy"):  # of JAX, and without filters
        return {}
    # Averages come first, as in timm's own reader.
    state = weights_in(read_checkpoint(file), (), file, (*AVERAGES, *ENTRIES))
    check_finite(state, {}, file)
    return state


def _flat(name: str) -> str:
    return name.replace(".", "_")
