"""Networks that are built without memory, as tools for large models do, and then loaded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aa_plugins import AAConfig, antialias

CONFIGS = [AAConfig(filter="blur"), AAConfig(init="identity"), AAConfig(filter="bank")]
X = torch.randn(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    )


def converted(config: AAConfig) -> nn.Module:
    model = network().eval()
    antialias(model, config)
    return model


def drawn(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0, 1, generator=generator)
    return model


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.filter)
@pytest.mark.parametrize("buffers", [False, True])
def test_built_empty_by_accelerate(config, buffers):
    accelerate = pytest.importorskip("accelerate", reason="accelerate isn't installed")
    saved = drawn(converted(config))
    with accelerate.init_empty_weights(include_buffers=buffers):
        model = converted(config)
    assert all(parameter.is_meta for parameter in model.parameters())
    model.load_state_dict(saved.state_dict(), assign=True)
    assert torch.equal(model.eval()(X), saved(X))


def test_parameters_without_memory_and_buffers_with_it():
    model = network()
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.to("meta")))
    report = antialias(model, {"filter": "blur", "stem": True})
    assert len(report.sites) == 1 and any("no values yet" in note for note in report.notes)
    assert not model[1].running_mean.is_meta


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.filter)
@pytest.mark.parametrize("meta", [False, True])
def test_sharded_by_torch(config, meta, one_process):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    saved = drawn(converted(config))
    with torch.device("meta" if meta else "cpu"):
        model = converted(config)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    model.to_empty(device="cpu")
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(model, saved.state_dict(), options=options)
    assert torch.equal(model.eval()(X), saved(X))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.filter)
def test_saved_and_loaded_by_transformers(config, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")

    class Converted(transformers.ResNetModel):
        def __init__(self, of):
            super().__init__(of)
            antialias(self, config)

    size = dict(hidden_sizes=[16, 32], depths=[1, 1], embedding_size=16)
    saved = drawn(Converted(transformers.ResNetConfig(**size))).eval()
    saved.save_pretrained(tmp_path)
    loaded = Converted.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(X).last_hidden_state, saved(X).last_hidden_state)


@pytest.fixture
def one_process(tmp_path):
    from torch import distributed

    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()
