"""The forward pass of a network, or of the largest part of it that can be followed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from aa_plugins.surgery.inputs import Inputs, likely_inputs
from aa_plugins.surgery.rows import Skipped
from aa_plugins.surgery.trace import Trace, trace_forward

STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
# How deep below a network a part that takes an image is looked for: detectors and their wrappers.
DEEPEST_PART = 3


@dataclass(frozen=True)
class Followed:
    """A forward pass, and what it is of.

    Attributes:
        model: the whole network.
        part: name of the module that was followed; "" for the whole network.
        inputs: that the part took.
        outside: strided modules beside the part.
    """

    model: nn.Module
    part: str
    inputs: Inputs
    trace: Trace
    outside: list[Skipped] = field(default_factory=list)


def follow(model: nn.Module, example: Any = None, may_repeat: bool = False) -> Followed:
    """Follow the forward pass of `model`, first on fake tensors, then really.

    Without an example, a part that holds every strided module (the backbone of a detector) is as
    good as the whole; where neither can be followed, the part that holds most of them is taken.

    Args:
        example: a tensor, a tuple (by position) or a dict (by name) of what the network takes.
        may_repeat: whether a module that runs several times can be a site.

    Raises:
        ValueError: where no forward pass succeeds, with the reason.
    """
    errors: list[str] = []
    if example is not None:
        candidates = [Inputs.of(example)]
    else:
        candidates = likely_inputs(model)
    trace = _traced(model, "", candidates, True, may_repeat, errors)
    best: Followed | None = None
    if trace is None and example is None:
        best = _largest_part(model, may_repeat)
        if best is not None and not best.outside:
            return best
    if trace is None:
        real = [run for inputs in candidates[:3] for run in inputs.to_run()]
        trace = _traced(model, "", list(real), False, may_repeat, errors)
    if trace is not None:
        return Followed(model, "", *trace)
    if best is not None:
        return best
    remedy = (
        "call antialias(model, config, example=<an input that it takes: a tensor, a tuple of "
        "positional or a dict of keyword arguments>), or antialias(model.backbone, config)"
        if example is None
        else "give an example that the network takes in eval mode"
    )
    raise ValueError(
        f"the forward pass of {type(model).__name__} failed on every likely input "
        f"({'; '.join(dict.fromkeys(errors))}): {remedy}"
    )


def _traced(
    model: nn.Module,
    part: str,
    candidates: list[Inputs],
    fake: bool,
    may_repeat: bool,
    errors: list[str],
) -> tuple[Inputs, Trace] | None:
    """The first inputs that the network takes and the trace on them, or None."""
    for inputs in candidates:
        try:
            return inputs, trace_forward(model, inputs, part, fake, may_repeat)
        except Exception as error:  # any error of any network: the next input may fit
            text = str(error).strip().splitlines()
            errors.append(f"{inputs}: {text[0] if text else repr(error)}")
    return None


def _largest_part(model: nn.Module, may_repeat: bool) -> Followed | None:
    """The part below `model` that takes an image and holds most of the strided modules."""
    best: Followed | None = None
    strided = _strided(model)
    for part in _parts(model):
        inside = [name for name in strided if name.startswith(f"{part}.")]
        if len(inside) < 2 or (best and len(inside) <= len(strided) - len(best.outside)):
            continue
        candidates = likely_inputs(model.get_submodule(part))[:3]
        traced = _traced(model, part, candidates, True, may_repeat, [])
        if traced is not None:
            outside = [
                Skipped(name, kind, f"outside {part}, the largest part that can be followed")
                for name, kind in strided.items()
                if name not in inside
            ]
            best = Followed(model, part, *traced, outside)
            if not outside:
                break
    return best


def _parts(model: nn.Module) -> Iterator[str]:
    """Names of the modules below `model`, the highest first."""
    names = [name for name, _ in model.named_modules() if name]
    yield from sorted((n for n in names if n.count(".") < DEEPEST_PART), key=lambda n: n.count("."))


def _strided(model: nn.Module) -> dict[str, str]:
    """Every convolution or pool with a stride, with its kind."""
    found = {}
    for name, module in model.named_modules():
        stride = getattr(module, "stride", 1)
        if isinstance(module, STRIDED) and (stride if isinstance(stride, int) else max(stride)) > 1:
            found[name] = "conv" if isinstance(module, nn.Conv2d) else "pool"
    return found
