"""What runs exported files: a class each, and a row of ENGINES by the ending of a file's name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SPATIAL = ("Conv", "MaxPool", "AveragePool", "Convolution", "GroupConvolution", "AvgPool")
RESIZED = ("Resize", "ConvTranspose", "DepthToSpace", "Interpolate", "ConvolutionBackpropData")


class Port(NamedTuple):
    """An input or output: its name, and sides, of which free ones aren't numbers."""

    name: str
    shape: tuple[int | str, ...]


class Node(NamedTuple):
    """One operation: its kind, the names of what it reads and gives, and its strides."""

    kind: str
    reads: list[str]
    gives: list[str]
    strides: list[int]


class Engine(ABC):
    """A file, ready to run.

    Attributes:
        title: of the format.
        inputs, outputs: of the network.

    Raises:
        ModuleNotFoundError: without the runtime.
        ValueError: for a file that it can't read.
    """

    title: str
    inputs: list[Port]
    outputs: list[Port]

    def __init__(self, path: str | Path) -> None:
        try:
            self.open(Path(path))
        except ModuleNotFoundError as error:
            needed = f"{path} needs {error.name}: pip install {error.name}"
            raise ModuleNotFoundError(needed) from None
        except Exception as error:  # whatever the runtime says of a file that it can't read
            line = str(error).strip().splitlines()[0]
            kind = type(self).title
            raise ValueError(f"{path} can't be read as {kind} ({line}): export it again") from None

    @abstractmethod
    def open(self, path: Path) -> None:
        """Read a file and say what it takes and gives."""

    @abstractmethod
    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """All outputs for (N, 3, H, W), float32."""

    @abstractmethod
    def nodes(self) -> list[Node]:
        """All operations, each after those that it reads from."""


class OnnxRuntime(Engine):
    """An ONNX file in ONNX Runtime."""

    title = "ONNX"

    def open(self, path: Path) -> None:
        import onnxruntime

        self.path = path
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.inputs = [Port(one.name, tuple(one.shape)) for one in self.session.get_inputs()]
        self.outputs = [Port(one.name, tuple(one.shape)) for one in self.session.get_outputs()]

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        return self.session.run(None, {self.inputs[0].name: images})

    def nodes(self) -> list[Node]:
        import onnx

        graph = onnx.load(str(self.path), load_external_data=False).graph
        return [
            Node(
                node.op_type,
                list(node.input),
                list(node.output),
                [stride for a in node.attribute if a.name == "strides" for stride in a.ints],
            )
            for node in graph.node
        ]


class OpenVino(Engine):
    """OpenVINO's NAME.xml, with NAME.bin beside it, on the CPU in float32 where it isn't int8."""

    title = "OpenVINO's"

    def open(self, path: Path) -> None:
        import openvino

        core = openvino.Core()
        self.model = core.read_model(path)
        # The usual hint lets it compute in half precision, where the processor can.
        self.compiled = core.compile_model(self.model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self.inputs = [self._port(one) for one in self.model.inputs]
        self.outputs = [self._port(one) for one in self.model.outputs]

    @staticmethod
    def _port(port: Any) -> Port:
        sides = port.get_partial_shape()
        shape = tuple(side.get_length() if side.is_static else "?" for side in sides)
        return Port(min(port.get_names(), default="unnamed"), shape)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        return [np.array(found) for found in self.compiled(images).to_tuple()]

    def nodes(self) -> list[Node]:
        return [
            Node(
                node.get_type_name(),
                [one.get_source_output().get_node().get_friendly_name() for one in node.inputs()],
                [node.get_friendly_name()],
                list(node.get_attributes().get("strides", ())),
            )
            for node in self.model.get_ordered_ops()
        ]


ENGINES: dict[str, type[Engine]] = {".onnx": OnnxRuntime, ".xml": OpenVino}


def total_stride(engine: Engine) -> int:
    """S of a file: the largest product of strides along a path from the image, at least 2.

    A map that is resized, or whose size is computed, starts again at 1.
    """
    strides: dict[str, int] = {}
    for node in engine.nodes():
        reached = max((strides.get(name, 1) for name in node.reads), default=1)
        if node.kind in SPATIAL:
            reached *= max(node.strides, default=1)
        elif node.kind in RESIZED:
            reached = 1
        strides.update(dict.fromkeys(node.gives, reached))
    return max(2, max(strides.values(), default=2))
