"""Tools that rebuild, fold or wrap modules: no filter goes silently, before or after."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import pytest
import timm
import torch
from timm.layers.norm_act import convert_sync_batchnorm, freeze_batch_norm_2d
from timm.utils import ModelEmaV3
from timm.utils import freeze as timm_freeze
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.fusion import fuse_conv_bn_eval

import aa_plugins.timm  # noqa: F401  registers aa_ models
from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.equivalence import relative_difference
from aa_plugins.layers import AdaptiveBlurPool2d, BlurPool2d

IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
EVERYWHERE = {"filter": "adaptive", "stem": True}
GONE = "the anti-aliasing of .* is gone"


def run(model: nn.Module, x: torch.Tensor = IMAGE) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(x)


def block(**options) -> nn.Sequential:
    """A convolution, a norm and an activation, converted."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)
    )
    model.train()(IMAGE)
    antialias(model, AAConfig(**{**EVERYWHERE, **options}), example=IMAGE)
    return model.eval()


@pytest.mark.parametrize("name", ["aa_mobilenetv3_small_100", "aa_efficientnet_b0"])
@pytest.mark.parametrize(
    "rebuild",
    [
        convert_sync_batchnorm,
        freeze_batch_norm_2d,
        lambda model: timm_freeze(model, []) or model,
    ],
    ids=["synchronised", "frozen", "timm.utils.freeze"],
)
def test_exchanged_norms_keep_every_filter(name, rebuild):
    model = timm.create_model(name, aa=EVERYWHERE).eval()
    expected = run(model)
    found = run(rebuild(copy.deepcopy(model)))
    assert relative_difference([found], [expected]) < 1e-4


def test_torchs_synchronised_norms_are_refused_where_they_would_lose_a_filter():
    model = timm.create_model("aa_efficientnet_b0", aa=EVERYWHERE).eval()
    expected = run(model)
    rebuilt = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    try:
        found = run(rebuilt)
    except ValueError as error:
        assert "is gone" in str(error) and "antialias()" in str(error)
    else:
        assert relative_difference([found], [expected]) < 1e-4


@pytest.mark.parametrize("filter", ["adaptive", "bank"])
def test_a_norm_folded_from_outside_is_refused(filter):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)).eval()
    model[1].running_mean.uniform_(-1, 1)
    model[1].bias.data.uniform_(-1, 1)
    antialias(model, AAConfig(filter, init="paper", stem=True), example=IMAGE)
    folded = copy.deepcopy(model)
    conv = fuse_conv_bn_eval(folded[0], folded[1])
    folded[0], folded[1] = conv, nn.Identity()
    with pytest.raises(ValueError, match=GONE):
        run(folded)


def test_a_fixed_filter_follows_a_folded_norm_or_is_refused():
    torch.manual_seed(0)
    for pad_mode in ("reflect", "zeros"):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
        model.eval()[1].running_mean.uniform_(-1, 1)
        antialias(model, AAConfig("blur", stem=True, pad_mode=pad_mode), example=IMAGE)
        expected = run(model)
        model[0], model[1] = fuse_conv_bn_eval(model[0], model[1]), nn.Identity()
        try:
            found = run(model)
        except ValueError as error:
            assert "is gone" in str(error)
        else:
            assert pad_mode == "reflect"
            assert relative_difference([found], [expected]) < 1e-5


def test_a_stride_that_comes_back_is_refused():
    model = block()
    model[0] = nn.Conv2d(3, 8, 3, 2, 1)
    with pytest.raises(ValueError, match=GONE):
        run(model)


def test_an_exchanged_host_is_refused():
    model = block()
    model[2] = nn.ReLU()
    with pytest.raises(ValueError, match=GONE):
        run(model)


def test_an_exchanged_class_is_not_built_without_a_filter():
    model = block()
    with pytest.raises(TypeError, match="goes before antialias"):
        type(model[2])()


def test_low_rank_adapters_work_or_say_so():
    peft = pytest.importorskip("peft", reason="peft isn't installed")
    model = timm.create_model("aa_resnet18", aa=EVERYWHERE).eval()
    expected = run(model)
    try:
        adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=[r"conv2"], r=2))
        found = run(adapted)
    except (TypeError, ValueError) as error:
        assert "antialias()" in str(error)
    else:
        assert relative_difference([found], [expected]) < 1e-4


@pytest.mark.parametrize("filter", ["blur", "adaptive", "bank"])
def test_adapters_merged_after_the_conversion_compute_the_same(filter):
    """Two predicted filters on the two paths of an adapter couldn't be merged into one."""
    peft = pytest.importorskip("peft", reason="peft isn't installed")
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["0"], r=2)).eval()
    for parameter in adapted.parameters():
        nn.init.normal_(parameter)
    report = antialias(adapted, AAConfig(filter=filter, stem=True, init="paper"))
    reasons = {row.name: row.reason for row in report.skipped}
    inside = [name for name in reasons if ".model.0." in name]
    assert len(inside) == (0 if filter == "blur" else 2)
    assert all("merge it before, or add it after" in reasons[name] for name in inside)
    expected = run(adapted)
    assert relative_difference([run(adapted.merge_and_unload())], [expected]) < 1e-4


@pytest.mark.parametrize(
    "wrap",
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: ModelEmaV3(model).module,
        lambda model: torch.compile(model, backend="eager"),
        lambda model: nn.DataParallel(model) if torch.cuda.is_available() else model,
        lambda model: torch.optim.swa_utils.AveragedModel(model),
    ],
    ids=["deepcopy", "pickle", "EMA", "compile", "DataParallel", "SWA"],
)
@pytest.mark.parametrize("filter", ["adaptive", "bank", "blur"])
def test_copies_and_wrappers_compute_the_same(wrap, filter):
    model = timm.create_model("aa_resnet18", aa={"filter": filter, "stem": True}).eval()
    expected = run(model)
    torch._dynamo.reset()
    assert relative_difference([run(wrap(model))], [expected]) < 1e-5


def test_pruning_and_parametrizations_after_conversion():
    model = block()
    prune.l1_unstructured(model[0], "weight", amount=0.3)
    parametrizations.weight_norm(model[3])
    assert run(model).shape == (2, 8, 32, 32)


@pytest.mark.parametrize(
    "normalized", [parametrizations.weight_norm, parametrizations.spectral_norm]
)
def test_parametrized_convolutions_convert_exactly(normalized):
    torch.manual_seed(0)
    plain = nn.Sequential(
        normalized(nn.Conv2d(3, 8, 3, 2, 1)), nn.ReLU(), nn.Conv2d(8, 4, 1)
    ).eval()
    model = copy.deepcopy(plain)
    antialias(model, AAConfig(init="identity", stem=True), example=IMAGE)
    assert relative_difference([run(model)], [run(plain)]) < 1e-5


class Stores(nn.Module):
    """Keeps its map in an attribute, which its owner reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = self.conv(x)
        return self.act(self.seen)


@dataclass
class Maps:
    before: torch.Tensor
    after: torch.Tensor


class Returns(Stores):
    """Gives its maps in a plain dataclass."""

    def forward(self, x: torch.Tensor) -> Maps:
        before = self.conv(x)
        return Maps(before, self.act(before))


def test_maps_that_others_read_keep_their_size():
    for kind, read in (
        (Stores, lambda m: (m(IMAGE), m.seen)),
        (Returns, lambda m: (m(IMAGE).before, m(IMAGE).after)),
    ):
        torch.manual_seed(0)
        plain = kind().eval()
        model = copy.deepcopy(plain)
        antialias(model, AAConfig(init="identity", stem=True), example=IMAGE)
        with torch.no_grad():
            assert relative_difference(read(model), read(plain)) < 1e-5


def test_a_hook_sees_the_map_that_it_saw_and_nothing_fake():
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    model = copy.deepcopy(plain)
    seen: list[torch.Tensor] = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    antialias(model, AAConfig(init="identity", stem=True), example=IMAGE)
    assert all(type(tensor) is torch.Tensor for tensor in seen)
    seen.clear()
    assert relative_difference([run(model)], [run(plain)]) < 1e-5
    assert [tuple(tensor.shape) for tensor in seen] == [(2, 8, 32, 32)]


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1).half(), nn.ReLU()),
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1).double(), nn.ReLU()),
    ],
    ids=["half", "double"],
)
def test_dtype_is_that_of_the_place(build):
    model = nn.Sequential(nn.Identity(), *build())
    model[0].register_parameter("count", nn.Parameter(torch.ones(1).long(), requires_grad=False))
    dtype = model[1].weight.dtype
    antialias(model, AAConfig(stem=True), example=torch.zeros(1, 3, 32, 32, dtype=dtype))
    filters = [m for m in model.modules() if isinstance(m, AdaptiveBlurPool2d)]
    assert {p.dtype for f in filters for p in f.parameters()} == {dtype}


def test_a_network_without_parameters():
    model = nn.Sequential(nn.MaxPool2d(2), nn.ReLU())
    antialias(model, AAConfig(filter="blur"), example=IMAGE)
    kernel = next(m for m in model.modules() if isinstance(m, BlurPool2d)).kernel(IMAGE)
    torch.testing.assert_close(kernel.sum(), torch.tensor(1.0))
    assert run(model).shape == (2, 3, 32, 32)


class Named(nn.Module):
    """Takes its input by name, beside something else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, other: int = 0, *, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image).relu()


class Pairs(nn.Module):
    """Takes two images as a tuple: a siamese encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2))

    def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return self.encoder(pair[0]) - self.encoder(pair[1])


def test_inputs_by_name_and_in_tuples():
    model = Named()
    assert antialias(model, AAConfig(stem=True), example={"image": IMAGE}).sites
    assert model(image=IMAGE).shape == (2, 8, 32, 32)
    model = Pairs()
    report = antialias(model, AAConfig(filter="blur", stem=True), example=((IMAGE, IMAGE),))
    assert [site.kind for site in report.sites] == ["stem", "max_pool"]
    assert model((IMAGE, IMAGE)).abs().max() == 0


def test_a_predicted_filter_does_not_serve_two_maps():
    with pytest.raises(ValueError, match="runs 2 times"):
        antialias(Pairs(), AAConfig(stem=True), example=((IMAGE, IMAGE),))


def test_odd_strides_are_skipped_and_the_rest_is_converted():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, (2, 1), 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
    )
    model[2].stride = [2, 2]
    report = antialias(model, AAConfig(stem=True), example=IMAGE)
    assert [site.name for site in report.sites] == ["2"]
    assert [row.name for row in report.skipped] == ["0"]
    assert "differs between the axes" in report.skipped[0].reason


def test_a_pool_that_gives_indices_is_left_alone():
    class Unpools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, 2, 1)
            self.pool = nn.MaxPool2d(2, return_indices=True)
            self.unpool = nn.MaxUnpool2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.unpool(*self.pool(self.conv(x)))

    report = antialias(Unpools(), AAConfig(stem=True), example=IMAGE)
    assert [site.name for site in report.sites] == ["conv"]
    assert "indices" in {row.name: row.reason for row in report.skipped}["pool"]


def test_the_right_number_of_groups():
    for channels, groups in ((12, 6), (25, 5), (7, 7), (16, 8), (11, 1)):
        model = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1))
        (site,) = antialias(model, AAConfig(groups=8, stem=True), example=IMAGE).sites
        assert site.groups == groups
