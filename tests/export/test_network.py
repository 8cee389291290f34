"""Files that networks are exported to, against torch."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterable

import pytest
import torch
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.command import run
from aa_plugins.diagnostics.equivalence import relative_difference
from aa_plugins.export import export, network
from aa_plugins.export.formats import FORMATS, OpenVino
from tests.export.test_filters import LAYERS, PADS, drawn

EXAMPLE = torch.zeros(1, 3, 48, 64)


def installed(suffix: str) -> None:
    for package in FORMATS[suffix].packages:
        pytest.importorskip(package, reason=f"{package} isn't installed")


def converted(**options) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.Conv2d(8, 16, 3, 2, 1),
    ).eval()
    if options:
        antialias(model, AAConfig(**{"stem": True, **options}))
    return model.eval()


# Whose graphs differ; the others differ from one of these in their constants alone.
GRAPHS = (
    *("blur-2", "blur-3", "adaptive-3-binomial", "adaptive-5-identity", "joint", "separable"),
    *("blurred", "bank-1-3-5-binomial", "bank-3-5-identity"),
)


class Filters(nn.Module):
    """Filters with every padding on one map, side by side: (N, 8, H, W) → a map each."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.filters = nn.ModuleList(
            drawn(cls(8, stride=2, pad_mode=pad_mode, **options))
            for (cls, options), pad_mode in itertools.product(map(LAYERS.get, names), PADS)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(layer(x) for layer in self.filters)


@torch.no_grad()
@pytest.mark.parametrize("names", [GRAPHS, pytest.param(tuple(LAYERS), marks=pytest.mark.slow)])
def test_every_filter_and_padding_in_both_runtimes(names, tmp_path):
    installed(".xml")
    model, path = Filters(names).eval(), tmp_path / "filters.onnx"
    written = export(model, path, torch.zeros(1, 8, 16, 24))
    assert list(written.differences) == [(16, 24), (17, 25), (13, 31)]
    assert max(written.differences.values()) < 1e-5
    in_openvino = OpenVino.open(path)
    for size in [(16, 24), (17, 25), (9, 7)]:
        x = torch.randn(3, 8, *size)
        assert relative_difference(in_openvino(x), list(model(x))) < 1e-5


@pytest.mark.parametrize(
    ("suffix", "filter"),
    [
        (".onnx", "blur"),
        *(
            pytest.param(suffix, filter, marks=pytest.mark.slow)
            for suffix, filter in itertools.product(FORMATS, ["blur", "adaptive", "bank"])
        ),
    ],
)
def test_every_format_computes_what_torch_does_at_three_sizes(suffix, filter, tmp_path):
    installed(suffix)
    written = export(converted(filter=filter), tmp_path / f"net{suffix}", EXAMPLE)
    assert list(written.differences) == [(48, 64), (49, 65), (37, 81)]
    assert max(written.differences.values()) < 1e-5
    assert written.size == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert 5 <= written.nodes < 150 and "checked against torch at 48×64" in str(written)


def test_of_a_fixed_size_alone(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3072, 5))
    for fixed in (False, True):  # where torch takes no other size, either
        written = export(model, tmp_path / "net.pt2", EXAMPLE, fixed=fixed)
        assert list(written.differences) == [(48, 64)]
        assert "checked against torch at 48×64, the only size that" in str(written)


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "exportable", lambda model: nn.Sequential(model, nn.Dropout(0.9)))
    with pytest.raises(ValueError, match="computes something else than torch.*nothing is kept"):
        export(converted(), tmp_path / "net.pt2", EXAMPLE)
    assert not list(tmp_path.iterdir())


def test_an_unknown_ending_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(ValueError, match="must end in one of .onnx, .pt2, .xml"):
        export(converted(filter="blur"), tmp_path / "net.tflite", EXAMPLE)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("aa_plugins.export.formats.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install onnx onnxscript onnxruntime"):
        export(converted(), tmp_path / "net.onnx", EXAMPLE)


def test_the_command(tmp_path, capsys):
    import timm

    torch.manual_seed(0)
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), weights)
    out = tmp_path / "net.pt2"
    arguments = ["timm:test_resnet", "--weights", str(weights), "--aa", "filter=blur"]
    assert run("export", [*arguments, "--out", str(out)]) == 0
    assert f"{out}: " in capsys.readouterr().out
    assert run("export", [*arguments, "--out", "net.h5"]) == 1
    assert "must end in one of" in capsys.readouterr().err


@pytest.mark.slow
def test_the_file_needs_nothing_of_ours(tmp_path):
    installed(".onnx")
    export(converted(filter="bank"), tmp_path / "net.onnx", EXAMPLE)
    code = (
        "import sys, numpy, onnxruntime; "
        f"s = onnxruntime.InferenceSession({str(tmp_path / 'net.onnx')!r}); "
        "print(s.run(None, {'image': numpy.zeros((3, 3, 50, 70), 'float32')})[0].shape); "
        "assert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "(3, 16, 7, 9)" in found.stdout
