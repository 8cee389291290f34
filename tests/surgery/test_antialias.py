"""What `antialias` reports, keeps and refuses."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn

from aa_plugins import AAConfig, AntialiasReport, antialias
from aa_plugins.diagnostics.equivalence import perturb, relative_difference
from aa_plugins.layers import filters_of

SMALL_SWIN = {"img_size": 64, "embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
RESNET = [
    "maxpool",
    *(f"layer{i}.0.{name}" for i in (2, 3, 4) for name in ("conv2", "downsample.0")),
]


@pytest.mark.parametrize(
    ("name", "kwargs", "names"),
    [
        ("resnet101", {}, RESNET),
        ("resnet18", {}, [name.replace("conv2", "conv1") for name in RESNET]),
        ("convnext_atto", {}, [f"stages.{i}.downsample.1" for i in (1, 2, 3)]),
        ("swin_tiny_patch4_window7_224", SMALL_SWIN, [f"layers.{i}.downsample" for i in (1, 2, 3)]),
        ("swinv2_tiny_window8_256", SMALL_SWIN, [f"layers.{i}.downsample" for i in (1, 2, 3)]),
        ("swinv2_cr_tiny_224", SMALL_SWIN, [f"stages.{i}.downsample" for i in (1, 2, 3)]),
    ],
)
def test_report_names_every_site(name, kwargs, names):
    model = timm.create_model(name, **kwargs)
    before = sum(p.numel() for p in model.parameters())
    report = antialias(model)
    assert [site.name for site in report.sites] == names
    assert all(site.stride == 2 and site.filter == "adaptive" for site in report.sites)
    added = sum(p.numel() for p in model.parameters()) - before
    assert sum(site.parameters for site in report.sites) == added > 0
    assert all(name in str(report) for name in names)
    json.dumps(report.to_dict())
    assert len(list(filters_of(model))) == len(names)


def test_torchvisions_resnet_has_the_same_sites():
    model = torchvision.models.resnet50()
    assert [site.name for site in antialias(model).sites] == RESNET


@pytest.mark.parametrize(
    ("off", "left"),
    [
        ({"max_pool": False}, 6),
        ({"conv": False}, 4),
        ({"shortcut": False}, 4),
        ({"max_pool": False, "shortcut": False}, 3),
        ({"stem": True}, 8),
        ({"merging": False}, 7),
    ],
)
def test_kinds_of_sites_are_switched_on_and_off(off, left):
    model = timm.create_model("resnet18")
    report = antialias(model, AAConfig(**off))
    assert len(report.sites) == left
    switched = [key for key, value in off.items() if not value and key != "merging"]
    for key in switched:
        assert f"{key}=False" in {row.reason for row in report.skipped}


def test_groups_that_do_not_divide_are_replaced_by_the_largest_divisor_below():
    model = timm.create_model("resnet18")
    report = antialias(model, AAConfig(groups=48))
    assert {(site.channels, site.groups) for site in report.sites} == {
        (64, 32),
        (128, 32),
        (256, 32),
        (512, 32),
    }
    assert str(report).count("48 groups don't divide") == 7


@pytest.mark.parametrize(
    ("channels", "asked", "found"), [(12, 8, 6), (25, 8, 5), (24, 8, 8), (7, 8, 7), (11, 8, 1)]
)
def test_the_largest_divisor_that_is_not_above(channels, asked, found):
    model = nn.Sequential(nn.Conv2d(3, channels, 1), nn.Conv2d(channels, channels, 3, 2, 1))
    report = antialias(model, AAConfig(groups=asked, filter="bank"))
    assert [site.groups for site in report.sites] == [found]
    assert model[1].postfilter.groups == found
    assert (f"{asked} groups don't divide {channels} channels" in str(report)) == (found != asked)


def test_a_bank_has_the_members_and_the_predictor_that_the_configuration_names():
    model = timm.create_model("resnet18")
    antialias(model, AAConfig(filter="bank", taps=(3, 5), predictor_input="blurred"))
    assert {(f.taps, f.predictor_input) for _, f in filters_of(model)} == {((3, 5), "blurred")}
    default = timm.create_model("resnet18")
    antialias(default, AAConfig(filter="bank", kernel_size=5))
    assert {(f.taps, f.predictor_input) for _, f in filters_of(default)} == {((1, 3, 5), "raw")}


@pytest.mark.parametrize("stride", [8, 16])
def test_stages_that_dilate_get_filters_at_stride_one_when_asked(stride):
    plain = timm.create_model("resnet26", output_stride=stride)
    perturb(plain, torch.randn(2, 3, 65, 65))
    converted = copy.deepcopy(plain)
    report = antialias(converted, AAConfig(init="identity", dilated=True))
    assert len(report.sites) == 7
    dilated = [site.name for site in report.sites if site.stride == 1]
    stages = (3, 4) if stride == 8 else (4,)
    assert dilated == [f"layer{i}.0.{n}" for i in stages for n in ("conv2", "downsample.0")]
    x = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        assert relative_difference([converted(x)], [plain(x)]) < 1e-5
        blurred = copy.deepcopy(plain)
        antialias(blurred, AAConfig(filter="blur", dilated=True))
        without = copy.deepcopy(plain)
        assert len(antialias(without, AAConfig(filter="blur")).sites) == 7 - len(dilated)
        assert relative_difference([blurred(x)], [without(x)]) > 1e-3


def test_a_stem_of_three_convolutions_is_filtered_after_its_activation():
    plain = timm.create_model("resnet26d")
    perturb(plain, torch.randn(2, 3, 65, 65))
    converted = copy.deepcopy(plain)
    report = antialias(converted, AAConfig(init="identity", stem=True))
    stem = next(site for site in report.sites if site.kind == "stem")
    assert (stem.name, stem.place) == ("conv1.0", "after conv1.2")
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        assert relative_difference([converted(x)], [plain(x)]) < 1e-5


def test_what_blurs_already_is_left_alone_and_reported():
    model = timm.create_model("resnetblur18")
    report = antialias(model)
    assert {site.kind for site in report.sites} == {"shortcut"}
    blurring = [row.name for row in report.skipped if row.reason == "blurs already"]
    assert blurring == ["maxpool.1", "layer2.0.aa", "layer3.0.aa", "layer4.0.aa"]


def test_nothing_is_converted_with_filter_none():
    model = timm.create_model("resnet18")
    text = str(model)
    assert antialias(model, {"filter": "none"}) == AntialiasReport(AAConfig(filter="none"))
    assert str(model) == text
    antialias(model, {"filter": "blur"})  # a plain model still


def test_mode_device_and_precision_are_those_of_the_network():
    model = timm.create_model("resnet18").double().eval()
    antialias(model, AAConfig(init="identity"))
    assert {t.dtype for t in model.state_dict().values()} == {torch.float64, torch.int64}
    assert not any(module.training for module in model.modules())
    with torch.device("meta"):
        model = timm.create_model("resnet18")
    antialias(model)
    assert all(p.is_meta for p in model.parameters())
    assert model.maxpool.training


def test_frozen_parameters_do_not_freeze_the_filters():
    model = timm.create_model("resnet18").requires_grad_(False)
    antialias(model)
    assert all(p.requires_grad for _, layer in filters_of(model) for p in layer.parameters())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_compute_the_same(copied):
    model = timm.create_model("resnet18").eval()
    antialias(model, AAConfig(stem=True))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(copied(model)(x), model(x))


@pytest.mark.parametrize("init", ["binomial", "identity", "paper"])
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("resnet18", {}),
        ("convnext_atto", {}),
        ("swin_tiny_patch4_window7_224", SMALL_SWIN),
        ("swinv2_tiny_window8_256", SMALL_SWIN),
    ],
)
def test_every_filter_has_moved_after_two_steps(name, kwargs, init):
    model = timm.create_model(name, num_classes=5, **kwargs)
    perturb(model, torch.randn(2, 3, 64, 64))
    antialias(model, AAConfig(init=init))
    model.train()
    layers = dict(filters_of(model))
    start = copy.deepcopy(layers)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        logits = model(torch.randn(4, 3, 64, 64))
        loss = nn.functional.cross_entropy(logits, torch.arange(4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for site, layer in layers.items():
        for parameter, before in zip(layer.named_parameters(), start[site].parameters()):
            assert parameter[1].grad.isfinite().all(), (site, parameter[0])
            assert (parameter[1] != before).any(), (site, parameter[0])


def test_converting_twice_is_an_error():
    model = timm.create_model("resnet18")
    antialias(model)
    with pytest.raises(ValueError, match="ResNet is anti-aliased already .at maxpool.*plain model"):
        antialias(model)


@pytest.mark.parametrize("filter_", ["adaptive", "bank", "blur"])
def test_nothing_to_convert_is_an_error(filter_):
    with pytest.raises(ValueError, match="nothing to convert in VisionTransformer.*patch embed"):
        antialias(timm.create_model("test_vit"), {"filter": filter_})
    with pytest.raises(ValueError, match="nothing to convert in ResNet.*max_pool=False"):
        off = {"max_pool": False, "conv": False, "shortcut": False}
        antialias(timm.create_model("resnet18"), {"filter": filter_, **off})


def test_unknown_option_is_an_error_that_leaves_the_network_as_it_is():
    model = timm.create_model("resnet18")
    text = str(model)
    with pytest.raises(ValueError, match="unknown AAConfig field 'kernel': known are filter, kern"):
        antialias(model, {"kernel": 5})
    assert str(model) == text


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (AAConfig(filter="blur"), 'filter="blur": a trained network computes something else'),
        (AAConfig(), 'init="binomial": a trained network computes something else'),
        (AAConfig(filter="bank", init="paper"), 'init="identity" starts as the network itself'),
    ],
)
def test_a_start_that_changes_a_trained_network_says_so(config, said):
    report = antialias(timm.create_model("test_resnet"), config)
    assert any(said in note for note in report.notes) and said in str(report)
    exact = antialias(timm.create_model("test_resnet"), AAConfig(init="identity"))
    assert "computes something else" not in str(exact)
