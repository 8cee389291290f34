"""timm's own ways of building a model work for `aa_<name>` as they do for the plain one."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from timm.layers import Format
from timm.models import get_arch_pretrained_cfgs, save_for_hf

from aa_plugins import AAConfig
from aa_plugins.diagnostics.equivalence import perturb, relative_difference
from aa_plugins.layers.kinds import filter_classes
from aa_plugins.surgery import filter_keys
from aa_plugins.timm import MODULES

IDENTITY = {"init": "identity"}
SMALL_SWIN = {"img_size": 64, "embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
FAMILIES = [
    ("resnet18", {}),
    ("convnext_atto", {}),
    ("swin_tiny_patch4_window7_224", SMALL_SWIN),
    ("swinv2_tiny_window8_256", SMALL_SWIN),
    ("swinv2_cr_tiny_224", SMALL_SWIN),
]


def perturbed(name: str, **kwargs) -> torch.nn.Module:
    model = timm.create_model(name, **kwargs)
    perturb(model, torch.randn(2, kwargs.get("in_chans", 3), 64, 64))
    return model


def assert_same(found: torch.nn.Module, expected: torch.nn.Module, channels: int = 3) -> None:
    x = torch.randn(1, channels, 64, 64)
    with torch.no_grad():
        assert relative_difference([found.eval()(x)], [expected.eval()(x)]) < 1e-5


def test_every_model_of_the_modules_is_registered_with_its_weights():
    plain = timm.list_models(module=MODULES)
    assert len(plain) >= 149
    assert timm.list_models("aa_*") == [f"aa_{name}" for name in plain]
    pretrained = timm.list_models(module=MODULES, pretrained=True)
    assert timm.list_models("aa_*", pretrained=True) == [f"aa_{name}" for name in pretrained]
    for name in plain:
        theirs = get_arch_pretrained_cfgs(name)
        ours = get_arch_pretrained_cfgs(f"aa_{name}")
        assert list(ours) == [f"aa_{key}" for key in theirs]
        for key, cfg in theirs.items():
            assert ours[f"aa_{key}"].hf_hub_id == cfg.hf_hub_id
            assert ours[f"aa_{key}"].url == cfg.url
        default = timm.get_pretrained_cfg(name)
        assert timm.get_pretrained_cfg(f"aa_{name}").tag == default.tag


def test_tag_chooses_the_configuration():
    model = timm.create_model("aa_resnet50.a1_in1k")
    assert model.pretrained_cfg["tag"] == "a1_in1k"
    assert model.pretrained_cfg["hf_hub_id"] == "timm/resnet50.a1_in1k"
    assert model.pretrained_cfg["architecture"] == "aa_resnet50"


@pytest.mark.parametrize(
    ("aa", "filter_name"),
    [
        (None, "AdaptiveBlurPool2d"),
        ({}, "AdaptiveBlurPool2d"),
        ({"filter": "bank"}, "FilterBankPool2d"),
        ({"filter": "trained"}, "TrainedBlurPool2d"),
        ({"filter": "flc"}, "FrequencyLowCutPool2d"),
        (AAConfig(filter="blur"), "BlurPool2d"),
        (AAConfig(filter="none"), None),
    ],
)
def test_filter_is_what_aa_says(aa, filter_name):
    model = timm.create_model("aa_resnet18", aa=aa)
    assert len(model.aa_report.sites) == (7 if filter_name else 0)
    names = {type(module).__name__ for module in model.modules()}
    for known in (kind.__name__ for kind in filter_classes().values()):
        assert (known in names) == (known == filter_name)


@pytest.mark.parametrize("name", ["resnet50", "convnext_atto"])
def test_options_of_the_plain_model_work(name):
    options = {"num_classes": 5, "in_chans": 2, "output_stride": 16, "drop_path_rate": 0.1}
    plain = perturbed(name, **options)
    model = timm.create_model(f"aa_{name}", aa=IDENTITY, **options)
    model.load_state_dict(plain.state_dict())
    assert model.num_classes == 5
    assert_same(model, plain, channels=2)
    assert len(model.aa_report.sites) == (5 if name == "resnet50" else 2)
    model.reset_classifier(3)
    assert model(torch.randn(1, 2, 64, 64)).shape == (1, 3)


def converted(name: str, **kwargs) -> torch.nn.Module:
    """A model with nothing at its start, filters included."""
    model = timm.create_model(f"aa_{name}", **kwargs)
    kwargs.pop("aa", None)
    model.load_state_dict(perturbed(name, **kwargs).state_dict())
    for key, tensor in model.state_dict().items():
        if key in filter_keys(model) and tensor.is_floating_point():
            tensor.uniform_(0.1, 0.9)
    return model


@pytest.mark.parametrize("given", ["file", "state_dict"])
@pytest.mark.parametrize("make", [perturbed, converted])
def test_pretrained_weights_are_loaded(tmp_path, given, make):
    source = make("resnet18", num_classes=7)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    where = {"file": str(tmp_path / "weights.pth"), "state_dict": source.state_dict()}
    overlay = {given: where[given], "num_classes": 7}
    options = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    if make is perturbed:
        options["aa"] = IDENTITY
    assert_same(timm.create_model("aa_resnet18", num_classes=7, **options), source)

    # timm leaves out the head where classes differ, and sums three colours into one.
    adapted = timm.create_model("aa_resnet18", num_classes=2, in_chans=1, **options)
    grey = source.conv1.weight.sum(1, keepdim=True)
    torch.testing.assert_close(adapted.conv1.weight, grey, rtol=1e-4, atol=1e-5)
    assert adapted.fc.weight.shape == (2, 512)
    norm = "layer4.1.bn2.weight"
    assert torch.equal(adapted.get_parameter(norm), source.get_parameter(norm))


@pytest.mark.parametrize(("name", "kwargs"), FAMILIES)
def test_feature_extractor_loads_a_converted_classifier(name, kwargs):
    source = converted(name, **kwargs)
    model = timm.create_model(
        f"aa_{name}",
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": source.state_dict()},
        features_only=True,
        **kwargs,
    )
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = source.eval().forward_intermediates(x, intermediates_only=True)
        assert relative_difference(model.eval()(x), expected) < 1e-5


def test_pretrained_filters_of_another_configuration_are_an_error():
    overlay = {"state_dict": converted("resnet18").state_dict()}
    options = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    with pytest.raises(ValueError, match="no filter 'act1.postfilter'.*another AAConfig"):
        timm.create_model("aa_resnet18", aa={"stem": True}, **options)
    with pytest.raises(ValueError, match=r"holds filters \(maxpool.postfilter.* the model none"):
        timm.create_model("aa_resnet18", aa={"filter": "blur"}, **options)


def test_saved_folder_is_loaded_by_name(tmp_path):
    source = converted("resnet18", num_classes=3, aa={"groups": 4})
    save_for_hf(source, tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert model.aa_report.config.groups == 4
    assert_same(model, source)


@pytest.mark.parametrize("make", [perturbed, converted])
def test_checkpoint_path_takes_plain_and_converted_weights(tmp_path, make):
    source = make("convnext_atto", num_classes=3)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "last.pth")
    model = timm.create_model(
        "aa_convnext_atto",
        num_classes=3,
        checkpoint_path=tmp_path / "last.pth",
        aa=IDENTITY if make is perturbed else None,
    )
    assert_same(model, source)


def test_checkpoint_of_another_architecture_is_an_error(tmp_path):
    torch.save(timm.create_model("resnet26").state_dict(), tmp_path / "other.pth")
    with pytest.raises(RuntimeError, match="AntialiasedResNet.*(.|\n)*Unexpected key"):
        timm.create_model("aa_resnet18", checkpoint_path=tmp_path / "other.pth")


def test_wrong_aa_is_an_error_before_anything_is_built():
    with pytest.raises(ValueError, match="filter='gauss' is unknown"):
        timm.create_model("aa_resnet18", aa={"filter": "gauss"}, num_classes="not even a number")


@pytest.mark.parametrize(("name", "kwargs"), FAMILIES)
def test_features_are_those_of_the_plain_model_in_nchw(name, kwargs):
    plain = timm.create_model(name, features_only=True, **kwargs)
    perturb(plain, torch.randn(2, 3, 64, 64))
    model = timm.create_model(f"aa_{name}", aa=IDENTITY, features_only=True, **kwargs).eval()
    assert set(model.state_dict()) == set(plain.state_dict()) | filter_keys(model)
    model.load_state_dict(plain.state_dict())
    assert model.output_fmt == Format.NCHW
    assert model.feature_info.module_name() == plain.feature_info.module_name()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps, expected = model(x), plain(x)
    if plain.output_fmt == Format.NHWC:
        expected = [map_.permute(0, 3, 1, 2) for map_ in expected]
    assert relative_difference(maps, expected) < 1e-5
    for map_, channels, reduction in zip(
        maps, model.feature_info.channels(), model.feature_info.reduction(), strict=True
    ):
        assert map_.shape == (1, channels, 64 // reduction, 64 // reduction)


def test_features_of_a_class_of_its_own():
    model = timm.create_model("aa_test_efficientnet", features_only=True).eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 64, 96))
    for map_, channels, stride in zip(
        maps, model.feature_info.channels(), model.feature_info.reduction(), strict=True
    ):
        assert map_.shape == (1, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize("feature_cls", ["dict", "hook", "getter", "fx"])
@pytest.mark.parametrize(("name", "kwargs"), [FAMILIES[0], FAMILIES[2]])
@pytest.mark.filterwarnings("ignore:NOTE. The nodes obtained by tracing")
def test_every_way_of_extracting_features_works(name, kwargs, feature_cls):
    options = {"features_only": True, "feature_cls": feature_cls, "out_indices": (1, 2), **kwargs}
    plain = timm.create_model(name, **options)
    perturb(plain, torch.randn(2, 3, 64, 64))
    model = timm.create_model(f"aa_{name}", aa=IDENTITY, **options).eval()
    assert model.aa_report.sites
    assert set(model.state_dict()) == set(plain.state_dict()) | filter_keys(model)
    model.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps, expected = model(x), plain(x)
    if feature_cls == "dict":
        assert list(maps) == list(expected)
        maps, expected = list(maps.values()), list(expected.values())
    assert model.output_fmt == Format.NCHW
    if plain.output_fmt == Format.NHWC:
        expected = [map_.permute(0, 3, 1, 2) for map_ in expected]
    assert relative_difference(maps, expected) < 1e-5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("options", [{}, {"features_only": True}])
def test_models_are_copied_and_pickled(copied, options):
    model = timm.create_model("aa_swin_tiny_patch4_window7_224", **SMALL_SWIN, **options).eval()
    other = copied(model)
    assert type(other) is type(model)
    assert str(other.aa_report) == str(model.aa_report)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for found, expected in zip(other(x), model(x)):
            assert torch.equal(found, expected)
    other.load_state_dict(model.state_dict())


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_model_computes_the_same(backend):
    model = converted("resnet18").eval()
    x = torch.randn(1, 3, 64, 64)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with torch.no_grad():
        assert relative_difference([compiled(x)], [model(x)]) < 1e-4


def test_memory_format_precision_and_checkpointing():
    model = converted("resnet18").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = [model(x)]
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        found = last(x.to(memory_format=torch.channels_last))
        assert relative_difference([found], expected) < 1e-4
        low = copy.deepcopy(model).bfloat16()(x.bfloat16())
        assert relative_difference([low.float()], expected) < 0.2  # of 18 layers
    grads = []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(x).sum().backward()
        grads.append([parameter.grad.clone() for parameter in model.parameters()])
    assert relative_difference(grads[1], grads[0]) < 1e-4
