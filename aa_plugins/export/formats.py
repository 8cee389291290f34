"""The files that networks are exported to: how each is written, and how it is run.

A format is a class with `write` and `open`, and a row of FORMATS.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

Runs = Callable[[torch.Tensor], list[torch.Tensor]]
OPSET = 18


class Onnx:
    """ONNX, run by ONNX Runtime."""

    packages = ("onnx", "onnxscript", "onnxruntime")

    @staticmethod
    def write(model: nn.Module, example: torch.Tensor, path: Path, free: bool) -> None:
        torch.onnx.export(
            model,
            (example,),
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            dynamic_shapes=_free_sizes() if free else None,
            external_data=False,
            verbose=False,
        )

    @staticmethod
    def open(path: Path, threads: int = 0) -> Runs:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (image,) = session.get_inputs()
        return lambda x: [torch.from_numpy(y) for y in session.run(None, {image.name: x.numpy()})]

    @staticmethod
    def nodes(path: Path) -> int:
        import onnx

        return len(onnx.load(path, load_external_data=False).graph.node)


class OpenVino:
    """OpenVINO's intermediate representation: NAME.xml, and NAME.bin beside it."""

    packages = ("openvino", *Onnx.packages)

    @staticmethod
    def write(model: nn.Module, example: torch.Tensor, path: Path, free: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder) / "network.onnx"
            Onnx.write(model, example, graph, free)
            OpenVino.convert(graph, path)

    @staticmethod
    def convert(graph: Path, path: Path) -> None:
        """An ONNX file to NAME.xml."""
        import openvino

        openvino.save_model(openvino.convert_model(graph), path, compress_to_fp16=False)

    @staticmethod
    def open(path: Path, threads: int = 0) -> Runs:
        import openvino

        # The usual hint lets it compute in half precision, where the processor can.
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        compiled = openvino.Core().compile_model(path, "CPU", options)
        return lambda x: [torch.from_numpy(y.copy()) for y in compiled(x.numpy()).to_tuple()]

    @staticmethod
    def nodes(path: Path) -> int:
        import openvino

        kinds = (op.get_type_name() for op in openvino.Core().read_model(path).get_ops())
        return sum(kind not in ("Constant", "Parameter", "Result") for kind in kinds)


class Program:
    """A program of torch.export: what AOTInductor and ExecuTorch compile."""

    packages = ()

    @staticmethod
    def write(model: nn.Module, example: torch.Tensor, path: Path, free: bool) -> None:
        shapes = _free_sizes() if free else None
        torch.export.save(torch.export.export(model, (example,), dynamic_shapes=shapes), path)

    @staticmethod
    def open(path: Path, threads: int = 0) -> Runs:
        module = torch.export.load(path).module()
        return lambda x: [leaf for leaf in tree_leaves(module(x)) if torch.is_tensor(leaf)]

    @staticmethod
    def nodes(path: Path) -> int:
        graph = torch.export.load(path).graph
        return sum(node.op == "call_function" for node in graph.nodes)


FORMATS = {".onnx": Onnx, ".pt2": Program, ".xml": OpenVino}


def format_of(path: Path) -> type[Onnx | OpenVino | Program]:
    """The format that a file's name asks for.

    Raises:
        ValueError: for another ending.
        ModuleNotFoundError: where a package that it needs isn't installed.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: the name must end in one of {', '.join(FORMATS)}")
    kind = FORMATS[path.suffix]
    missing = [package for package in kind.packages if find_spec(package) is None]
    if missing:
        raise ModuleNotFoundError(
            f"{path.suffix} needs {' and '.join(missing)}: pip install {' '.join(missing)}"
        )
    return kind


def _free_sizes() -> tuple[dict[int, torch.export.Dim]]:
    """(N, 3, H, W), all but the channels free."""
    return (dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO),)
