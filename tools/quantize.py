#!/usr/bin/env python
"""An int8 twin of an exported file: of .onnx by ONNX Runtime's static quantization (QDQ, weights by
channel), of OpenVINO's .xml by NNCF.

pip install 'aa-plugins[export]' nncf
python tools/quantize.py network.onnx --data photos --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5

It is calibrated on photos, resized and cropped to the size that the file takes. Beside
network-int8.onnx stands network-mixed.onnx, whose filters stay in float32, where there are any.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aa_plugins.exported.engines import ENGINES

CALIBRATION = 64  # photos
FILTERS = "aa_plugins.export.filters"  # the modules whose nodes are a filter's


def quantize(path: Path, batches: Iterable[np.ndarray], keep_filters: bool = False) -> Path:
    """The int8 file, beside `path`.

    Args:
        batches: (N, 3, H, W) float32 that the file takes, to calibrate on.
        keep_filters: leave the filters in float.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Photos(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.left, None)
            return None if batch is None else {"image": batch}

    quantized = path.with_name(f"{path.stem}-{'mixed' if keep_filters else 'int8'}.onnx")
    quantize_static(
        path,
        quantized,
        Photos(),
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=filter_nodes(path) if keep_filters else [],
    )
    return quantized


def quantize_openvino(path: Path, batches: Iterable[np.ndarray]) -> Path:
    """The int8 file of OpenVINO's NAME.xml, beside it, by NNCF's defaults.

    Args:
        batches: (N, 3, H, W) float32 that the file takes, to calibrate on.

    Raises:
        ModuleNotFoundError: without NNCF.
    """
    if find_spec("nncf") is None:
        raise ModuleNotFoundError(f"{path}: .xml is quantized by NNCF: pip install nncf")
    import nncf
    import openvino

    samples = list(batches)
    model = openvino.Core().read_model(path)
    made = nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples))
    quantized = path.with_name(f"{path.stem}-int8.xml")
    openvino.save_model(made, quantized, compress_to_fp16=False)
    return quantized


def input_shape(path: Path) -> list[int]:
    """(N, 3, H, W) that a file takes.

    Raises:
        ValueError: for a file of another kind, or one whose sizes are free.
    """
    if path.suffix not in ENGINES:
        raise ValueError(f"{path}: only {' and '.join(ENGINES)} files are quantized")
    shape = list(ENGINES[path.suffix](path).inputs[0].shape)
    if not all(isinstance(side, int) for side in shape):
        raise ValueError(f"{path} takes {shape}: export it for one size (--fixed)")
    return shape


def filter_nodes(path: Path) -> list[str]:
    """Names of the nodes that are a filter's."""
    import onnx

    nodes = onnx.load(path).graph.node
    return [n.name for n in nodes if any(FILTERS in prop.value for prop in n.metadata_props)]


def size_of(path: Path) -> int:
    """Bytes of a file, with those of the weights beside it."""
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" else 0)


def photos(folder: Path, shape: list[int], resize: tuple[int, int], mean: Any, std: Any) -> Any:
    """Batches of one photo each, as often as the file's first dimension says."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not files:
        raise FileNotFoundError(f"no photos in {folder}: give a folder of .png or .jpg files")
    count, _, height, width = shape
    for file in files[:: max(1, len(files) // CALIBRATION)][:CALIBRATION]:
        image = Image.open(file).convert("RGB").resize(resize[::-1], Image.Resampling.BILINEAR)
        pixels = (np.asarray(image, dtype=np.float32) / 255 - mean) / std
        crop = pixels[:height, :width].transpose(2, 0, 1)
        yield np.stack([crop] * count).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="of a fixed size")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="photos")
    parser.add_argument("--mean", type=float, nargs=3, required=True, help="of RGB in [0, 1]")
    parser.add_argument("--std", type=float, nargs=3, required=True, help="of RGB in [0, 1]")
    parser.add_argument(
        "--resize", type=int, nargs=2, metavar=("H", "W"), help="photos, before they are cropped"
    )
    args = parser.parse_args()
    for path in args.files:
        shape = input_shape(path)
        how = (shape, tuple(args.resize or shape[2:]), np.array(args.mean), np.array(args.std))
        if path.suffix == ".xml":
            written = [quantize_openvino(path, photos(args.data, *how))]
        else:
            kept = (False, True) if filter_nodes(path) else (False,)
            written = [quantize(path, photos(args.data, *how), keep) for keep in kept]
        for file in written:
            print(f"{file}: {size_of(file) / 1e6:.1f} MB")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")
