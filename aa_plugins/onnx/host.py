"""A network in an ONNX file, run by ONNX Runtime: "FILE.onnx".

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

from aa_plugins.hosts.interface import Request, SizeRefused
from aa_plugins.hosts.module import ModuleNetwork, network_of

INSTANCES = ("boxes", "labels", "scores")
SPATIAL = ("Conv", "MaxPool", "AveragePool")


def load(request: Request) -> ModuleNetwork:
    """The network of a file.

    Raises:
        FileNotFoundError, ModuleNotFoundError: where the file or ONNX Runtime is missing.
        ValueError: for a file that isn't ONNX or takes or gives something else; for weights or a
            conversion, as a file's layers stay as they are.
    """
    request.refuse("weights", "aa", why="as the file has its weights and its layers")
    if not Path(request.network).is_file():
        raise FileNotFoundError(f"no file {request.network}: give the path of an .onnx file")
    model = OnnxModule(request.network)
    network = network_of(
        model,
        request.task or model.task,
        request,
        num_classes=request.classes or model.num_classes,
        stride=total_stride(request.network),
        size=model.size,
    )
    network.weights, network.name = request.network, Path(request.network).stem
    return network


class OnnxModule(nn.Module):
    """A session of ONNX Runtime as a module: (N, 3, H, W) → scores, or as torchvision's detectors
    a list of images (3, H, W) → a list of mappings.

    Attributes:
        task: what its outputs make of it.
        size: (H, W) in pixels where the file fixes them, else None.
        num_classes: where the file says.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"{path} needs onnxruntime: pip install onnxruntime"
            ) from None
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # whatever the runtime says of a file that it can't read
            line = str(error).strip().splitlines()[0]
            raise ValueError(f"{path} can't be read as ONNX ({line}): export it again") from None
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) not in (3, 4):
            takes = ", ".join(f"{one.name} {one.shape}" for one in inputs)
            raise ValueError(f"{path} takes {takes}: it must take one tensor (N, 3, H, W)")
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
            gives = ", ".join(f"{one.name} {one.shape}" for one in outputs)
            raise ValueError(
                f"{path} gives {gives}: it must give scores (N, classes) or (N, classes, h, w), or "
                f"outputs named {', '.join(INSTANCES)}"
            )

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
        return self.session.run(None, {self.input.name: images.cpu().numpy()})


def total_stride(path: str | Path) -> int:
    """S of an ONNX file: the largest product of strides along a path from the image, at least 2.

    A map that is resized, or whose size is computed, starts again at 1.
    """
    import onnx

    strides: dict[str, int] = {}
    for node in onnx.load(str(path), load_external_data=False).graph.node:
        reached = max((strides.get(name, 1) for name in node.input), default=1)
        if node.op_type in SPATIAL:
            given = next((a.ints for a in node.attribute if a.name == "strides"), [1])
            reached *= max(given)
        elif node.op_type in ("Resize", "ConvTranspose", "DepthToSpace"):
            reached = 1
        strides.update(dict.fromkeys(node.output, reached))
    return max(2, max(strides.values(), default=2))
