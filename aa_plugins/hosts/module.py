"""Any `nn.Module` as a network to measure: what timm's, torchvision's and your own share."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from aa_plugins.datasets.images import (
    ClassifiedImages,
    CocoInstances,
    Images,
    SegmentedImages,
)
from aa_plugins.evaluation import (
    LeftOut,
    Protocol,
    RecordWriter,
    extract,
    read_records,
    require_finite_weights,
    run_identity,
)
from aa_plugins.evaluation.stride import stride_at, total_stride
from aa_plugins.evaluation.tasks import TASKS
from aa_plugins.evaluation.views import ViewPlan
from aa_plugins.hosts import detector
from aa_plugins.hosts.interface import Change, Network, Record, Request, Sample
from aa_plugins.layers import filters_of
from aa_plugins.surgery import antialias, load_plain_or_converted

logger = logging.getLogger(__name__)

PRETRAINED = "pretrained"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
USUAL = (224, 224)


@dataclass(frozen=True)
class Preparation:
    """From an image to the network's input.

    Args:
        size: the input's height and width in pixels. A classifier's image is resized so that its
            shorter side leaves room for shifts around a view of this size; a segmentor's to this
            size; None leaves it as it is.
        mean, std: of RGB in [0, 1]; a detector normalizes by itself.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if len(values := getattr(self, name)) != 3:
                raise ValueError(f"{name}={values}: give three numbers, of red, green and blue")


class ModuleNetwork(Network):
    """An `nn.Module` that maps images (N, 3, H, W) to what its task needs.

    A classifier gives scores (N, classes). A segmentor gives scores (N, classes, h, w), which are
    resized to the input, as a tensor, under "out", or as `logits`. A detector takes and gives what
    torchvision's do: a list of images in [0, 1], a list of mappings with `boxes`, `labels`,
    `scores` and, with masks, `masks`.

    Args:
        model: with its weights.
        task: "classification", "semantic" or "instance".
        images: to test on.
        num_classes: measured on a blank image unless given; a detector's are those of `images`.
        preparation: of images.
        ignore: label of pixels without ground truth.
        name: for tables.
        weights: their file, where there is one: its contents are the identity.
        stride: measured unless given.
    """

    def __init__(
        self,
        model: nn.Module,
        task: str,
        images: Images | CocoInstances | None = None,
        num_classes: int | None = None,
        preparation: Preparation | None = None,
        ignore: int = 255,
        name: str = "network",
        weights: str | Path | None = None,
        stride: int | None = None,
    ) -> None:
        if task not in TASKS:
            raise ValueError(f"task={task!r} is unknown: choose one of {', '.join(TASKS)}")
        if images is not None and images.task != task:
            raise ValueError(f"task={task!r}, but the images' truth is for {images.task!r}")
        require_finite_weights(model, str(weights or name))
        self.model, self.task, self.name = model.eval(), task, name
        self.images, self.ignore, self.weights = images, ignore, weights
        self.preparation = preparation or Preparation()
        self._stride = stride
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.num_classes = num_classes or self._count_classes()

    def _count_classes(self) -> int:
        if self.task == "instance":
            return self.images.num_classes if self.images is not None else 0
        (scores,) = self.predict([self.example()[0]])
        return len(scores)

    @cached_property
    def stride(self) -> int:
        if self._stride is not None:
            return self._stride
        if self.task == "instance":
            return detector.stride_of(self.model)
        try:
            stride = total_stride(self.model)
        except (AssertionError, RuntimeError):  # it takes no other size than its own
            stride = stride_at(self.model, self.example())
        return max(2, stride)  # a shift by 1 is never one of whole strides

    def example(self) -> torch.Tensor:
        size = self.preparation.size or USUAL
        return torch.zeros(1, 3, *size, device=self.device)

    @property
    def core(self) -> nn.Module:
        return self.model.backbone if self.task == "instance" else self.model

    def inputs(self) -> Iterator[tuple[str | int, torch.Tensor]]:
        self._require_images()
        for index, image_id in enumerate(self.images.ids):
            yield image_id, self.prepare(*self.images.read(index))[0].to(self.device)

    def _require_images(self) -> None:
        if self.images is None:
            raise ValueError(f"{self.name} has no images to run on: give data, a folder of them")

    def protocol(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"stride": self.stride}
        if self.task == "classification":
            fields["crop"] = self.preparation.size or USUAL
        return fields

    @torch.no_grad()
    def predict(self, views: Iterable[torch.Tensor]) -> Iterator[Any]:
        for view in views:
            view = view.to(self.device)
            if self.task == "instance":
                yield detector.predict(self.model, view)
                continue
            scores = _scores(self.model(view[None]))
            if scores.shape[1] == 1:  # one score that tells two classes apart
                scores = torch.cat([torch.zeros_like(scores), scores], 1)
            if self.task == "semantic":
                scores = F.interpolate(scores, view.shape[-2:], mode="bilinear").softmax(1)
            yield scores[0]

    def trainable(self) -> nn.Module:
        instances = self.task == "instance"
        return detector.InstancesOf(self.model) if instances else Logits(self.model)

    def prepared(self, image: np.ndarray) -> torch.Tensor:
        return self.prepare(image, None)[0]

    def prepare(
        self, image: np.ndarray, truth: Any = None, protocol: Protocol | None = None
    ) -> tuple[torch.Tensor, Any]:
        """An image (H, W, 3) and its truth as the network gets them: (3, H, W), in its pixels.

        Args:
            protocol: whose views a classifier's image leaves room for; its own by default.
        """
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
        if self.task == "instance":
            return detector.at_input(self.model, pixels, truth)
        size = self._input_size(*pixels.shape[-2:], protocol)
        if size != tuple(pixels.shape[-2:]):
            pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
            if self.task == "semantic" and truth is not None:
                labels = torch.from_numpy(truth.astype(np.int64))[None, None].float()
                truth = F.interpolate(labels, size, mode="nearest-exact")[0, 0].long().numpy()
        mean, std = (
            torch.tensor(values)[:, None, None]
            for values in (self.preparation.mean, self.preparation.std)
        )
        return (pixels - mean) / std, truth

    def _input_size(self, height: int, width: int, protocol: Protocol | None) -> tuple[int, int]:
        size = self.preparation.size
        if self.task == "semantic":
            return size or (height, width)
        view = size or USUAL
        protocol = protocol or self.default_protocol()
        # A view, and around it what it moves by.
        moved = max((abs(d) for shift in protocol.shifts for d in shift), default=0)
        around = 2 * max(moved, protocol.stride if protocol.controls else 0)
        if protocol.pairs:
            around = max(around, protocol.max_shift + 1)
        scale = max((side + around) / own for side, own in zip(view, (height, width)))
        return math.ceil(scale * height), math.ceil(scale * width)

    def _identity(self) -> dict[str, Any]:
        files = [*self.images.files]
        files += [p for p in getattr(self.images, "labels", ()) if p is not None]
        files += [p for p in [getattr(self.images, "annotations", None)] if p is not None]
        return run_identity(
            model=str(self.model),
            weights=self.weights if self.weights is not None else self.model.state_dict(),
            files=files,
            data=[self.images.ids, self.num_classes, self.ignore],
            pipeline=vars(self.preparation),
            software=("timm", "torchvision"),
        )

    def measure(
        self, protocol: Protocol, folder: str | Path, resume: bool = False, processes: int = 1
    ) -> list[Record]:
        self._require_images()
        if processes > 1:
            raise ValueError(f"{processes} processes: {self.name} is measured in one")
        scorer = self.scorer(protocol)
        ids, files = self.images.ids, self.images.files
        with RecordWriter(
            folder, protocol, self._identity(), resume=resume, task=self.task
        ) as writer:
            left_out = LeftOut(writer)
            todo = [index for index in range(len(ids)) if ids[index] not in writer.done]
            progress = tqdm(todo, desc=self.name, total=len(ids), initial=len(ids) - len(todo))
            for index in progress:
                read = left_out.read(
                    ids[index], files[index], lambda i=index: self._planned(i, protocol)
                )
                if read is not None:
                    pixels, truth, plan = read
                    views = (extract(pixels, view) for view in plan.views)
                    writer.append(scorer.score(plan, self.predict(views), truth))
            left_out.require_some(len(ids))
        return read_records(folder)[1]

    def _planned(self, index: int, protocol: Protocol) -> tuple[torch.Tensor, Any, ViewPlan]:
        pixels, truth = self.prepare(*self.images.read(index), protocol)
        return pixels, truth, protocol.plan(*pixels.shape[-2:], self.images.ids[index])

    def samples(self, protocol: Protocol) -> list[Sample]:
        self._require_images()

        def load(index: int, change: Change | None) -> tuple[torch.Tensor, Any]:
            image, truth = self.images.read(index)
            return self.prepare(image if change is None else change(image), truth, protocol)

        rows = enumerate(zip(self.images.ids, self.images.files))
        return [Sample(name, str(file), partial(load, index)) for index, (name, file) in rows]

    def scorer(self, protocol: Protocol) -> Any:
        options = {"ignore_index": self.ignore} if self.task == "semantic" else {}
        return TASKS[self.task].scorer(protocol, self.num_classes, **options)


def network_of(
    model: nn.Module,
    task: str,
    request: Request,
    num_classes: int | None = None,
    stride: int | None = None,
    **own: Any,
) -> ModuleNetwork:
    """A network as a request asks for it, from the model that a host has built.

    Args:
        num_classes: where the host knows.
        stride: where the host knows better than a measurement.
        own: the model's own `size`, `mean` and `std`, which the request may overrule.

    Raises:
        ValueError: for weights of another architecture, or a request that contradicts itself.
        FileNotFoundError: where weights or data are missing.
    """
    request.refuse("data_root", "overrides", why="as only a config has data sets and keys")
    check_data(request, task)
    asked = {name: getattr(request, name) for name in ("size", "mean", "std")}
    said = {name: tuple(value) for name, value in asked.items() if value is not None}
    if task == "instance":
        request.refuse(*asked, why="as a detector resizes and normalizes by itself")
    images = instances_of(request) if task == "instance" else None
    network = ModuleNetwork(
        _converted(model, request),
        task,
        images,
        num_classes or request.classes,
        Preparation(**{**own, **said}),
        request.ignore,
        request.network.rpartition(":")[2],
        None if request.weights == PRETRAINED else request.weights,
        stride,
    )
    if task != "instance" and request.data is not None:
        network.images = (
            SegmentedImages(request.data, request.labels)
            if task == "semantic"
            else ClassifiedImages(request.data, network.num_classes)
        )
    return network


def check_data(request: Request, task: str) -> None:
    """Raise ValueError where a request names data of another task, before anything is built."""
    for name, of in (("labels", "semantic"), ("annotations", "instance")):
        value = getattr(request, name)
        if value is not None and (of != task or request.data is None):
            raise ValueError(
                f"{name}={value} goes with data, the folder of the images, and task {of}; the task "
                f"of {request.network} is {task}"
            )
    if task == "instance" and request.data is not None and request.annotations is None:
        raise ValueError(f"{request.network}: instances need annotations, a file in COCO's format")


def instances_of(request: Request) -> CocoInstances | None:
    """The images of a request for a detector, None where it names none."""
    check_data(request, "instance")
    return None if request.data is None else CocoInstances(request.data, request.annotations)


def _converted(model: nn.Module, request: Request) -> nn.Module:
    """The model in place as a request asks for it: converted, and with the weights of its file,
    which may be those of the plain or of the converted network. A warning names filters that keep
    their start, so that what is measured isn't taken for a trained network.

    Raises:
        ValueError: for weights of another architecture, or where nothing can be converted.
    """
    if request.aa is not None:
        antialias(model, request.aa)
    if request.weights is not None and str(request.weights) != PRETRAINED:
        untrained = load_plain_or_converted(model, request.weights)
    else:
        untrained = [name for name, _ in filters_of(model)]
    if untrained:
        logger.warning(
            f"{request.network}: the weights hold no filters, {len(untrained)} keep their start "
            f"(first: {untrained[0]}); what is measured is a swap without training"
        )
    return model.to(request.device).eval()


class Logits(nn.Module):
    """A classifier or segmentor of any host as a module that gives its scores: (N, 3, H, W) →
    (N, classes), or (N, classes, h, w) at the stride of its head."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # MMSegmentation's segmentors answer this with their head's scores, which is its default.
        return _scores(self.network(images))


class PixelScores(Logits):
    """The same of a segmentor, at the size of its input: (N, 3, H, W) → (N, classes, H, W)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        corners = getattr(self.network, "align_corners", False)
        size = images.shape[-2:]
        return F.interpolate(super().forward(images), size, mode="bilinear", align_corners=corners)


def _scores(output: Any) -> torch.Tensor:
    """The scores in what a network returns: a tensor, a mapping's "out", or `logits`."""
    if isinstance(output, Mapping) and "out" in output:
        output = output["out"]
    output = getattr(output, "logits", output)
    if not isinstance(output, torch.Tensor):
        raise ValueError(
            f"the network returns {type(output).__name__}: return scores as a tensor, under "
            '"out", or as `logits`'
        )
    return output
