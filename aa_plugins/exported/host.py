"""A network in an exported file: "FILE.onnx", run by ONNX Runtime, or OpenVINO's "FILE.xml".

It takes images (N, 3, H, W), of any size where its file leaves height and width free. What it gives
says what it does: scores (N, classes) of a classifier, (N, classes, h, w) of a segmentor, or
outputs named boxes, labels and scores (and masks) of a detector, as torchvision exports them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from aa_plugins.evaluation.identity import files_fingerprint
from aa_plugins.exported.engines import ENGINES, Port, total_stride
from aa_plugins.hosts.interface import Request, SizeRefused
from aa_plugins.hosts.module import ModuleNetwork, network_of

INSTANCES = ("boxes", "labels", "scores")


def load(request: Request) -> ModuleNetwork:
    """The network of a file.

    Raises:
        FileNotFoundError, ModuleNotFoundError: where the file or its runtime is missing.
        ValueError: for a file that can't be read or takes or gives something else; for weights or a
            conversion, as a file's layers stay as they are.
    """
    request.refuse("weights", "aa", why="as the file has its weights and its layers")
    path = Path(request.network)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: give the path of an {path.suffix} file")
    model = ExportedModule(path)
    network = network_of(
        model,
        request.task or model.task,
        request,
        num_classes=request.classes or model.num_classes,
        stride=total_stride(model.engine),
        size=model.size,
    )
    # Of OpenVINO's two files the other one holds the numbers.
    weights = path.with_suffix(".bin")
    network.weights = weights if path.suffix == ".xml" and weights.is_file() else path
    network.name = path.stem
    return network


class ExportedModule(nn.Module):
    """A file as a module: (N, 3, H, W) → scores, or as torchvision's detectors a list of images
    (3, H, W) → a list of mappings.

    Attributes:
        task: what its outputs make of it.
        size: (H, W) in pixels where the file fixes them, else None.
        num_classes: where the file says.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.engine = ENGINES[path.suffix](path)
        self.graph = files_fingerprint([path])
        inputs, outputs = self.engine.inputs, self.engine.outputs
        if len(inputs) != 1 or len(inputs[0].shape) not in (3, 4):
            raise ValueError(
                f"{path} takes {_listed(inputs)}: it must take one tensor (N, 3, H, W)"
            )
        self.input, self.names = inputs[0], [one.name for one in outputs]
        sides = self.input.shape[-2:]
        self.size = tuple(sides) if all(isinstance(side, int) for side in sides) else None
        shape = outputs[0].shape
        if set(INSTANCES) <= set(self.names):
            self.task, self.num_classes = "instance", None
        elif len(outputs) == 1 and len(shape) in (2, 4):
            self.task = "classification" if len(shape) == 2 else "semantic"
            self.num_classes = shape[1] if isinstance(shape[1], int) else None
        else:
            raise ValueError(
                f"{path} gives {_listed(outputs)}: it must give scores (N, classes) or "
                f"(N, classes, h, w), or outputs named {', '.join(INSTANCES)}"
            )

    def extra_repr(self) -> str:
        return self.graph  # of OpenVINO's two files it isn't in the one with the weights

    def forward(self, images: torch.Tensor | list[torch.Tensor]) -> Any:
        if self.task == "instance":
            return [self._instances(image) for image in images]
        return torch.from_numpy(self._run(images)[0])

    def _instances(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        image = image if len(self.input.shape) == 3 else image[None]
        found = dict(zip(self.names, map(torch.from_numpy, self._run(image))))
        return {name: found[name] for name in (*INSTANCES, "masks") if name in found}

    def _run(self, images: torch.Tensor) -> list[np.ndarray]:
        fixed = [side for side in self.input.shape if isinstance(side, int)]
        if self.size is not None and tuple(images.shape[-2:]) != self.size:
            height, width = images.shape[-2:]
            raise SizeRefused(
                f"the file takes {'×'.join(map(str, fixed))} alone, not {height}×{width}: export "
                "it with free height and width"
            )
        return self.engine.run(images.cpu().numpy())


def _listed(ports: list[Port]) -> str:
    return ", ".join(f"{one.name} [{', '.join(map(str, one.shape))}]" for one in ports)
