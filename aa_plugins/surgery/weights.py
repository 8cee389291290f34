"""Loading a checkpoint into a converted network, and auditing that it fits."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from aa_plugins.checkpoints import State, check_finite, read_checkpoint, weights_in
from aa_plugins.layers import filters_of


def filter_keys(model: nn.Module) -> set[str]:
    """Keys of the state dict that conversion added."""
    return set().union(*_keys_by_filter(model).values())


def load_plain_or_converted(model: nn.Module, checkpoint: str | Path | State) -> list[str]:
    """Load the weights of a plain or of a converted network into a converted one.

    Args:
        model: the converted network.
        checkpoint: a state dict, or the path of one (see `aa_plugins.checkpoints`); what trainers
            and wrappers put around it is taken away.

    Returns:
        The filters that the checkpoint doesn't hold, which keep their start.

    Raises:
        FileNotFoundError: for a path that doesn't exist.
        ValueError: for a file that is no checkpoint, weights that aren't finite, or a checkpoint of
            another architecture, naming the first key that differs; nothing has been loaded then.
    """
    found, source = checkpoint, "the checkpoint"
    if isinstance(checkpoint, (str, Path)):
        found, source = read_checkpoint(checkpoint), checkpoint
    own, network = model.state_dict(), type(model).__name__
    state = weights_in(found, own, source)
    absent = {n: keys for n, keys in _keys_by_filter(model).items() if keys.isdisjoint(state)}
    needed = own.keys() - set().union(*absent.values())
    for problem, keys in (
        (f"{source} lacks", [key for key in own if key in needed and key not in state]),
        (f"{network} has no place for", [key for key in state if key not in own]),
        (
            f"{source} has another shape at",
            [key for key in own if key in state and own[key].shape != state[key].shape],
        ),
    ):
        if keys:
            raise ValueError(
                f"{problem} {keys[0]!r} and {len(keys) - 1} more keys: is {source} of another "
                f"architecture than {network}, or of another AAConfig?"
            )
    check_finite(state, own, source)
    model.load_state_dict(state, strict=False)
    return list(absent)


def _keys_by_filter(model: nn.Module) -> dict[str, set[str]]:
    """Keys of the state dict for each filter with parameters."""
    return {
        name: {f"{name}.{key}" for key in layer.state_dict()} for name, layer in filters_of(model)
    }
