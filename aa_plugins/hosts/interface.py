"""What every host gives, written down: a host is a folder of `aa_plugins` with a `host.py`.

A host's `host.py` has one function, ``load(request: Request) -> Network``: it builds the network
of a config or of a name, loads its weights, and says how it is tested. A row in
`aa_plugins.hosts.Host` makes it known. Whatever runs networks (`aa-plugins consistency`, `inspect`
and the others) knows `Network` and no host.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from aa_plugins.config import AAConfig
from aa_plugins.evaluation.identity import files_fingerprint, fingerprint
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.hosts import host_of

Record = dict[str, Any]
# An image (H, W, 3), uint8 in RGB, to another of its size, as a corruption makes.
Change = Callable[[np.ndarray], np.ndarray]


class SizeRefused(ValueError):
    """A network takes images of another size alone."""


@dataclass(frozen=True)
class Request:
    """A network and what to test it on, as a command line or a script asks for it.

    Args:
        network: a config, "timm:NAME", "torchvision:NAME" or "MODULE:FUNCTION".
        weights: a file; "pretrained" downloads what timm or torchvision publish for the name; None
            keeps what the network is built with.
        aa: the conversion, for hosts whose networks don't bring their own; None converts nothing.
        data: folder of images, for hosts without configs.
        labels: folder of their label maps (semantic segmentation).
        annotations: file in COCO's format (instance segmentation and detection).
        task: "classification", "semantic" or "instance", where the name doesn't say.
        classes: how many, where the network doesn't say.
        ignore: label of pixels without ground truth.
        size: height and width of the network's input in pixels; by default its own.
        mean, std: of RGB in [0, 1]; by default the network's own, else ImageNet's.
        data_root: folder of a config's data sets.
        overrides: KEY=VALUE of a config.
        device: "cpu", "cuda", …
    """

    network: str
    weights: str | Path | None = None
    aa: AAConfig | None = None
    data: str | Path | None = None
    labels: str | Path | None = None
    annotations: str | Path | None = None
    task: str | None = None
    classes: int | None = None
    ignore: int = 255
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    data_root: str | Path | None = None
    overrides: tuple[str, ...] = ()
    device: str = "cpu"

    def refuse_all_but_configs(self) -> None:
        """Raise ValueError where something is set that a config says itself."""
        names = ("aa", "data", "labels", "annotations", "classes", "ignore", "size", "mean", "std")
        self.refuse(*names, why="as the config says it: override that with KEY=VALUE")

    def refuse(self, *names: str, why: str) -> None:
        """Raise ValueError where one of these fields is set: a host that would ignore it says so.

        Args:
            why: what the host does instead.
        """
        usual = {field.name: field.default for field in fields(self)}
        for name in names:
            if getattr(self, name) != usual[name]:
                value = getattr(self, name)
                raise ValueError(f"{self.network}: {name}={value!r} has no effect, {why}")


@dataclass(frozen=True)
class Sample:
    """A test image that is read when it is asked for.

    Args:
        image_id: unique in the test set.
        file: its path, for reasons.
        load: given what changes the image right after it is read, before anything else is done to
            it: pixels (C, H, W) as the network gets them, and the truth in these pixels as the
            task's scorer takes it.
    """

    image_id: str | int
    file: str
    load: Callable[[Change | None], tuple[torch.Tensor, Any]]


class Network(ABC):
    """A network with its weights, in eval mode.

    Attributes:
        name: for tables.
        task: "classification", "semantic" or "instance".
        model: the network.
        weights: their file; None where there is none.
    """

    name: str
    task: str
    model: nn.Module
    weights: str | Path | None = None

    @cached_property
    @abstractmethod
    def stride(self) -> int:
        """S, the total stride in pixels of the network's input."""

    @property
    def core(self) -> nn.Module:
        """What maps images (N, C, H, W) to maps or scores: the network, or its backbone where the
        network takes a host's own kind of input."""
        return self.model

    @abstractmethod
    def example(self) -> torch.Tensor:
        """An input (1, C, H, W) of `core`, of the size that the network is tested with."""

    @abstractmethod
    def inputs(self) -> Iterator[tuple[str | int, torch.Tensor]]:
        """Id and pixels (C, H, W) of each test image, as the network gets them.

        Raises:
            ValueError: where the request names no images.
        """

    @abstractmethod
    def samples(self, protocol: Protocol) -> list[Sample]:
        """The test images with what is known of them, large enough for the views of a protocol
        where the network resizes images to leave room for them.

        Raises:
            ValueError: where the request names no images.
        """

    @abstractmethod
    def scorer(self, protocol: Protocol) -> Any:
        """Scores predictions on the views of one image: an instance of the task's `scorer`."""

    @abstractmethod
    def trainable(self) -> nn.Module:
        """The network as `aa_plugins.training` takes it: prepared images (N, C, H, W) to scores, or
        to instances."""

    @abstractmethod
    def prepared(self, image: np.ndarray) -> torch.Tensor:
        """Any image, (H, W, 3) uint8 in RGB, as the network gets those it is tested on: pixels
        (C, H', W')."""

    def window(self, height: int, width: int, room: int = 0) -> tuple[slice, slice]:
        """Rows and columns of a prepared image of this size that the network is run on: of a
        classifier the centre, as large as its views and `room` pixels more, as some take no other
        size; of others all."""
        if self.task != "classification":
            return slice(0, height), slice(0, width)
        views = self.protocol()["crop"]
        kept = [min(own, side + room) for own, side in zip((height, width), views)]
        starts = [(own - side) // 2 for own, side in zip((height, width), kept)]
        rows, columns = (slice(start, start + side) for start, side in zip(starts, kept))
        return rows, columns

    @abstractmethod
    def predict(self, views: Iterable[torch.Tensor]) -> Iterator[Any]:
        """What the network says of each view (C, H, W) of a prepared image, as it is tested.

        Returns:
            one a view: scores (classes,), probabilities (classes, H, W), or a mapping with
            `scores`, `labels`, `boxes` and `masks` of instances.
        """

    def weights_hash(self) -> str:
        """16 hexadecimal digits of the weights: of their file, or of what the model holds."""
        if self.weights is not None:
            return files_fingerprint([self.weights])
        return fingerprint(self.model.state_dict())

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """The fields of the protocol that fits: its stride, and what the network's config asks."""

    def default_protocol(self) -> Protocol:
        """The protocol that fits this network."""
        return Protocol.from_dict(self.protocol())

    @abstractmethod
    def measure(
        self, protocol: Protocol, folder: str | Path, resume: bool = False, processes: int = 1
    ) -> list[Record]:
        """Records of the test images, in `folder` and returned; images that can't be measured are
        left out, named and counted.

        Raises:
            ValueError: where no image can be measured, a prediction isn't finite (the image
                named), or records of another run are there on resuming.
        """


def load_network(network: str, **options: Any) -> Network:
    """Load a network of any host.

    Args:
        network: a config, "timm:NAME", "torchvision:NAME" or "MODULE:FUNCTION".
        options: further fields of `Request`.

    Raises:
        ValueError: for an option that the host would ignore, or weights of another architecture.
        FileNotFoundError: where a config, weights or data are missing.
        ModuleNotFoundError: where the host isn't installed.
    """
    request = Request(network, **options)
    return host_of(request.network).load().load(request)
