"""Who an image is, and what a run must have in common with its resumption.

An image's id is its path below the data root, whole: a folder's name and a file's name alone repeat
in real data sets (``seq1/img/0001.png``, ``seq2/img/0001.png``), and of two images with one id only
one would be measured.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

# What predictions or their comparison depend on; hosts add themselves.
SOFTWARE = ("aa-plugins", "torch", "numpy", "opencv-python", "opencv-python-headless", "pillow")


def image_id(path: str | Path, root: str | Path) -> str:
    """The id of an image: its path below the data root, with ``/``.

    Raises:
        ValueError: the image lies elsewhere.
    """
    relative = os.path.relpath(os.path.abspath(path), os.path.abspath(root))
    if relative.split(os.sep)[0] == os.pardir:
        raise ValueError(
            f"{path} lies outside of the data root {root}; give the folder that holds all images"
        )
    return Path(relative).as_posix()


def image_ids(paths: Sequence[str | Path], root: str | Path | None = None) -> list[str]:
    """The ids of all images of a data set, in order.

    Args:
        root: the data root; without, the folder that all of them share.

    Raises:
        ValueError: an image lies elsewhere, or is listed twice.
    """
    if root is None:
        root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return unique([image_id(path, root) for path in paths])


def dataset_ids(datasets: Mapping[str, Sequence[str | int]]) -> dict[str, list[str | int]]:
    """Ids of several data sets that are measured in one run: each with its data set's name before
    it, ``NAME/ID``; of a single one as they are.

    Raises:
        ValueError: a data set has an id twice.
    """
    for name, ids in datasets.items():
        unique(ids, f"data set {name!r}")
    if len(datasets) == 1:
        return {name: list(ids) for name, ids in datasets.items()}
    return {name: [f"{name}/{i}" for i in ids] for name, ids in datasets.items()}


def unique(ids: Sequence[str | int], where: str = "the data set") -> list[str | int]:
    """The ids as a list.

    Raises:
        ValueError: an id repeats.
    """
    seen: set[str | int] = set()
    for one in ids:
        if one in seen:
            raise ValueError(
                f"{where} has {list(ids).count(one)} images with the id {one!r}: only one of them "
                "would be measured; give every image an id of its own and list it once"
            )
        seen.add(one)
    return list(ids)


def run_identity(
    *,
    model: object,
    weights: str | Path | Mapping | bytes,
    files: Iterable[str | Path],
    data: object,
    pipeline: object,
    software: Sequence[str] = (),
) -> dict:
    """What must not change between a run and its resumption, for a
    :class:`~aa_plugins.evaluation.records.RecordWriter`, which refuses where it did.

    Args:
        model: the configuration that builds the network, with its conversion.
        weights: their file; or the state dict itself, where there is no file.
        files: of the data set, in order: images and labels, or the annotations. Their contents
            count, their places don't.
        data: what else says which images are measured, such as ids in order, split, classes.
        pipeline: what happens to an image before the network: transforms, sizes, normalization,
            and the mode of inference.
        software: packages that the host adds.

    Returns:
        hashes by name, and ``software``: the versions of packages.
    """
    packages = {name: _version(name) for name in (*SOFTWARE, *software)}
    return {
        "model": fingerprint(model),
        "weights": _weights(weights),
        "data": fingerprint([data, files_fingerprint(files)]),
        "pipeline": fingerprint(pipeline),
        "software": {name: found for name, found in packages.items() if found is not None},
    }


def fingerprint(value: object) -> str:
    """16 hexadecimal digits that differ between values: JSON types, paths, tensors, and for
    anything else its ``repr``, without addresses in memory."""
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def files_fingerprint(files: Iterable[str | Path]) -> str:
    """16 hexadecimal digits of the contents of files, in order. What is missing counts as such."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(_contents(file))
    return digest.hexdigest()[:16]


def _contents(file: str | Path) -> bytes:
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    except OSError as error:
        return type(error).__name__.encode()
    return digest.digest()


def _weights(weights: str | Path | Mapping | bytes) -> str:
    if isinstance(weights, (str, Path)):
        if not Path(weights).is_file():
            raise FileNotFoundError(f"no weights {weights}: give the file of a trained model")
        return files_fingerprint([weights])
    return fingerprint(weights)


def _plain(value: object) -> object:
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        digest = hashlib.sha256(plain.reshape(-1).view(torch.uint8).numpy()).hexdigest()
        return [str(plain.dtype), list(plain.shape), digest]
    if isinstance(value, Mapping):
        return {str(key): entry for key, entry in value.items()}
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, Path):
        return str(value)
    if " at 0x" in repr(value):
        return [type(value).__qualname__, getattr(value, "__dict__", {})]
    return repr(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
