"""What no result may be made of: values that aren't finite.

A network whose weights are NaN finds nothing, which looks like a bad network instead of a broken
one: detectors drop boxes that aren't finite before anyone sees them. So hosts ask here three times:
once about the weights, for every image about what leaves the backbone, and about the predictions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

REMEDY = "look at the model's weights and precision"


def require_finite(values: object, image_id: str | int, what: str = "a prediction") -> None:
    """Refuse NaN and infinity, in any nesting of mappings, lists and objects with fields.

    Args:
        values: tensors, arrays and numbers; what isn't numeric is passed over.
        image_id: of the image, for the message.
        what: of the image they are.

    Raises:
        ValueError: a value isn't finite. The message names the image.
    """
    if not _finite(values):
        raise ValueError(f"image {image_id!r}: {what} isn't finite; {REMEDY}")


@contextmanager
def finite_outputs(
    module: nn.Module, image_id: str | int, what: str = "what the network computes"
) -> Iterator[None]:
    """Within it, outputs of a module (such as a detector's backbone) that aren't finite raise as
    in :func:`require_finite`."""
    handle = module.register_forward_hook(
        lambda _, __, output: require_finite(output, image_id, what)
    )
    try:
        yield
    finally:
        handle.remove()


def require_finite_weights(model: nn.Module, source: str = "the model") -> None:
    """Refuse a model with parameters or buffers that aren't finite.

    Args:
        source: where its weights come from, for the message.

    Raises:
        ValueError: a tensor isn't finite. The message names the first one and counts them.
    """
    named = [*model.named_parameters(), *model.named_buffers()]
    broken = [name for name, tensor in named if not _finite(tensor.detach())]
    if broken:
        raise ValueError(
            f"{source}: {len(broken)} of {len(named)} tensors aren't finite, the first is "
            f"{broken[0]}; the training diverged or the file is broken: use other weights"
        )


def _finite(values: object) -> bool:
    if isinstance(values, torch.Tensor):
        inexact = values.is_floating_point() or values.is_complex()
        return not inexact or values.is_meta or bool(torch.isfinite(values).all())
    if isinstance(values, (float, complex, np.ndarray, np.inexact)):
        array = np.asarray(values)
        return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())
    if isinstance(values, (str, bytes)):
        return True
    if isinstance(values, Mapping):
        return all(map(_finite, values.values()))
    if isinstance(values, (list, tuple)):
        return all(map(_finite, values))
    if hasattr(values, "get_fields"):  # Detectron2's Instances
        return all(map(_finite, values.get_fields().values()))
    fields = getattr(values, "__dict__", {})  # its Boxes, dataclasses
    return all(_finite(v) for v in fields.values() if isinstance(v, (torch.Tensor, np.ndarray)))
