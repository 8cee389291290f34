"""Converted networks in the hands of compilers, exporters, other precisions and copies."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import timm
import torch
from timm.models import create_feature_extractor
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.checkpoint import checkpoint

import aa_plugins.timm  # noqa: F401  names the filters as leaves of timm's tracer
from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.equivalence import perturb, relative_difference
from aa_plugins.layers import filters_of

NAMES = ["test_resnet", "test_efficientnet"]
FILTERS = ["adaptive", "bank", "trained", "blur"]
UNEXPORTED = [*FILTERS, "flc"]  # runtimes know no Fourier transform of a free size
ANY_SIZE = {2: torch.export.Dim("height", min=32), 3: torch.export.Dim("width", min=32)}
SIZES = [(64, 96), (65, 97), (33, 128)]


def converted(name: str = "test_resnet", **options) -> torch.nn.Module:
    """A converted network whose filters do filter."""
    torch.manual_seed(0)
    model = timm.create_model(name)
    antialias(model, AAConfig(**{"pad_mode": "replicate", "stem": True} | options))
    perturb(model, torch.randn(2, 3, 64, 64))
    return model


def small(ceil_mode: bool = True, **options) -> torch.nn.Module:
    """A small converted network with every kind of site that a graph has to carry."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 1),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=4),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1, ceil_mode=ceil_mode),
        nn.AvgPool2d(2, ceil_mode=ceil_mode, count_include_pad=False),
        nn.Conv2d(16, 4, 1, stride=2),
    )
    report = antialias(model, AAConfig(**{"pad_mode": "replicate"} | options))
    assert [site.kind for site in report.sites] == ["conv", "max_pool", "avg_pool", "shortcut"]
    perturb(model, torch.randn(2, 3, 64, 64))
    return model


def compute(model: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model(x)]


@pytest.mark.parametrize("filter", UNEXPORTED)
def test_one_graph_without_breaks(filter):
    model, x = converted(filter=filter, init="binomial"), torch.randn(1, 3, 64, 64)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert relative_difference(compute(compiled, x), compute(model, x)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_compiled_by_inductor(name):
    model, x = converted(name), torch.randn(1, 3, 64, 64)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)
    assert relative_difference(compute(compiled, x), compute(model, x)) < 1e-4


@pytest.mark.parametrize("pad_mode", ["replicate", "zeros"])
@pytest.mark.slow
def test_exports_with_any_height_and_width(pad_mode):
    model, x = small(pad_mode=pad_mode), torch.randn(2, 3, 64, 96)
    program = torch.export.export(model, (x,), dynamic_shapes=(ANY_SIZE,))
    for size in SIZES:
        x = torch.randn(2, 3, *size)
        assert relative_difference(compute(program.module(), x), compute(model, x)) < 1e-5


@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize("filter", FILTERS)
def test_onnx_by_the_exporter_of_torchscript(filter, any_size):
    """Which mmdeploy uses."""
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model, x = small(filter=filter, pad_mode="reflect").eval(), torch.randn(2, 3, 64, 96)
    axes = {"x": {0: "n", 2: "height", 3: "width"}} if any_size else None
    file = io.BytesIO()
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
    torch.onnx.export(model, (x,), file, dynamo=False, opset_version=17, **names)
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for size in SIZES if any_size else [(64, 96)]:
        x = torch.randn(3 if any_size else 2, 3, *size)
        found = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
        assert relative_difference([found], compute(model, x)) < 1e-5


@pytest.mark.parametrize("filter", FILTERS)
def test_an_exported_program_needs_nothing_of_ours(filter):
    program = torch.export.export(small(filter=filter).eval(), (torch.randn(2, 3, 64, 96),))
    targets = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert targets and not [target for target in targets if "aa_plugins" in target]


@pytest.mark.slow
@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("pad_mode", ["replicate", "zeros"])
def test_onnx_with_any_height_and_width(filter, pad_mode):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model, x = small(False, filter=filter, pad_mode=pad_mode), torch.randn(2, 3, 64, 96)
    file = io.BytesIO()
    torch.onnx.export(model, (x,), file, dynamic_shapes=(ANY_SIZE,), verbose=False)
    graph = onnx.load_from_string(file.getvalue())
    assert next(o.version for o in graph.opset_import if not o.domain) >= 17
    assert {node.domain for node in graph.graph.node} == {""}  # no operator of our own
    pads = [node for node in graph.graph.node if node.op_type == "Pad"]
    assert b"reflect" not in {attribute.s for node in pads for attribute in node.attribute}
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for size in SIZES:
        x = torch.randn(2, 3, *size)
        (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert relative_difference([torch.from_numpy(output)], compute(model, x)) < 1e-4


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(filter, dtype):
    model, x = converted(filter=filter), torch.randn(1, 3, 64, 64)
    expected = compute(model, x)
    output = compute(copy.deepcopy(model).to(dtype), x.to(dtype))
    tolerance = {torch.float16: 0.02, torch.bfloat16: 0.15}
    assert output[0].dtype == dtype
    assert relative_difference([output[0].float()], expected) < tolerance[dtype]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert relative_difference([compute(model, x)[0].float()], expected) < 0.15


@pytest.mark.parametrize("filter", UNEXPORTED)
def test_channels_last(filter):
    model, x = converted(filter=filter), torch.randn(1, 3, 64, 64)
    expected = compute(model, x)
    model.to(memory_format=torch.channels_last)
    output = compute(model, x.to(memory_format=torch.channels_last))
    assert relative_difference(output, expected) < 1e-5


def test_deterministic_algorithms():
    model, x = converted(init="identity").train(), torch.randn(2, 3, 64, 64)
    torch.use_deterministic_algorithms(True)
    try:
        gradients = []
        for _ in range(2):
            model.zero_grad()
            model(x).square().mean().backward()
            gradients.append([p.grad.clone() for _, f in filters_of(model) for p in f.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


@pytest.mark.parametrize("filter", UNEXPORTED)
def test_traced_by_fx(filter):
    model, x = converted(filter=filter), torch.randn(1, 3, 64, 64)
    traced = create_feature_extractor(model, {"layer2": "middle", "fc": "last"}).eval()
    with torch.no_grad():
        maps = traced(x)
    assert maps["middle"].shape[-2:] == (8, 8)
    assert relative_difference([maps["last"]], compute(model, x)) < 1e-6


def test_gradient_checkpointing():
    model, x = converted(init="identity").train(), torch.randn(2, 3, 64, 64)
    twin = copy.deepcopy(model)
    twin.set_grad_checkpointing()
    for network in (model, twin):
        network(x.clone().requires_grad_()).square().mean().backward()
    for (_, ours), (_, theirs) in zip(filters_of(model), filters_of(twin)):
        for a, b in zip(ours.parameters(), theirs.parameters()):
            assert torch.allclose(a.grad, b.grad, atol=1e-6)
    layer = next(filters_of(model))[1]
    y = torch.randn(1, layer.channels, 9, 9, requires_grad=True)
    checkpoint(layer, y, use_reentrant=False).sum().backward()
    assert y.grad.isfinite().all()


@pytest.mark.parametrize("filter", UNEXPORTED)
def test_copies(filter):
    model, x = converted(filter=filter), torch.randn(1, 3, 64, 64)
    expected = compute(model, x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = {
        "deepcopy": copy.deepcopy(model),
        "pickle": pickle.loads(pickle.dumps(model)),
        "save": torch.load(file, weights_only=False),
        "ema": ModelEmaV3(model).module.eval(),
    }
    for name, twin in copies.items():
        assert torch.equal(compute(twin, x)[0], expected[0]), name
        assert twin.state_dict().keys() == model.state_dict().keys(), name
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
    assert torch.equal(compute(model, x)[0], expected[0])  # a copy shares nothing


@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traced(ceil_mode):
    model, x = small(ceil_mode), torch.randn(2, 3, 61, 96)
    with torch.no_grad():
        traced = torch.jit.trace(model, x, check_trace=False)
    assert relative_difference(compute(traced, x), compute(model, x)) < 1e-5
