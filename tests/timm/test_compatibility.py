"""Any timm model: converted it computes what it did, and trains."""

from __future__ import annotations

import pytest
import timm
import torch

from aa_plugins import antialias
from aa_plugins.diagnostics.equivalence import relative_difference
from aa_plugins.timm import MODULES
from aa_plugins.timm.models import PATCH_EMBEDDING_ONLY, TIMM_MODULES
from tests.timm.records import ABOVE, CONVERTED, PLAIN, marked
from timm_sweep.inspection import (
    EVERYWHERE,
    check_features,
    check_identity,
    check_placement,
    check_sites,
    check_training,
    odd_images,
    specimen,
)

# One for each kind of site: avg-down, weight-standardised, fused norm and activation, depthwise,
# squeeze-and-excite, attention, groups that don't divide, branches.
SMALL = {
    "test_byobnet": 9,
    "test_efficientnet": 5,
    "test_nfnet": 8,
    "test_mambaout": 5,
    "lcnet_035": 5,
    "pvt_v2_b0": 4,
}


def assert_same_function(name: str, sites: int) -> None:
    found = check_sites(name)
    row = check_identity(name)
    assert found["converted"] == sites
    assert row["difference"] <= 1e-4
    assert row["odd_difference"] <= 1e-4  # False where the size is fixed
    features = check_features(name)
    assert features["feature_difference"] <= ABOVE.get(name, 1e-4)
    assert max(row["roll"], features["feature_roll"]) > 0.01
    assert row["blur"] > 0.01
    assert row["extra_macs"] > 0


@pytest.mark.parametrize(("name", "sites"), SMALL.items())
def test_a_converted_model_computes_what_it_did(name, sites):
    assert_same_function(name, sites)


@pytest.mark.parametrize("name", ["test_byobnet", "pvt_v2_b0"])
def test_two_steps_move_every_filter(name):
    row = check_training(name)
    assert row["finite_filters"] == row["moved_filters"] == SMALL[name]


def assert_placed_before(name: str) -> None:
    row = check_placement(name)
    assert row["pre_difference"] <= 1e-4 and row["pre_blur"] > 0.01
    assert row["pre_finite_filters"] == row["pre_moved_filters"] == row["pre_converted"] > 0


@pytest.mark.parametrize("name", ["test_efficientnet", "test_mambaout"])
def test_so_it_does_with_filters_before_its_strided_convolutions(name):
    assert_placed_before(name)


@pytest.mark.slow
@pytest.mark.parametrize("row", [row["model"] for row in CONVERTED])
def test_every_row_holds_with_filters_before_strided_convolutions(row):
    assert_placed_before(row)


@pytest.mark.parametrize("row", marked(CONVERTED))
def test_every_row_of_the_table_holds(row):
    assert_same_function(row["model"], row["converted"])
    trained = check_training(row["model"])
    assert trained["finite_filters"] == trained["moved_filters"] == row["converted"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ABOVE)
def test_what_float32_rounds_apart_is_equal_in_float64(name):
    plain, converted, _ = specimen(name, features_only=True)
    images = odd_images(plain).double()
    with torch.no_grad():
        assert relative_difference(converted.double()(images), plain.double()(images)) <= 1e-10


@pytest.mark.parametrize("row", marked(PLAIN))
def test_a_patch_embedding_is_all_that_reduces(row):
    assert row["module"] in PATCH_EMBEDDING_ONLY
    report = antialias(timm.create_model(row["model"]), EVERYWHERE, dry_run=True)
    assert not report.sites
    assert any("patch embedding" in skipped.reason for skipped in report.skipped)


def test_every_module_is_registered_or_embeds_patches():
    ours = "models"  # aa_plugins.timm.models registers itself
    assert {*TIMM_MODULES, ours} == set(timm.models.list_modules())
    assert {*TIMM_MODULES} == {*MODULES, *PATCH_EMBEDDING_ONLY}
    for module in MODULES:
        assert timm.models.is_model(f"aa_{timm.list_models(module=module)[0]}")


def test_groups_that_do_not_divide_are_reported():
    report = antialias(timm.create_model("res2net50_26w_4s"), dry_run=True)
    rows = {site.name: site for site in report.sites}
    assert rows["layer2.0.convs.0"].channels == 52
    assert rows["layer2.0.convs.0"].groups == 4
    assert "8 groups don't divide 52 channels" in str(report)


@pytest.mark.parametrize(
    ("name", "inside"), [("pvt_v2_b0", "attn.sr"), ("twins_svt_small", "attn.sr")]
)
def test_attention_reductions_are_left_alone(name, inside):
    report = antialias(timm.create_model(name), EVERYWHERE, dry_run=True)
    denied = [row for row in report.skipped if inside in row.name]
    assert denied and all("inside" in row.reason for row in denied)
    assert not any(inside in site.name for site in report.sites)


def test_what_blurs_already_is_left_alone():
    model = timm.create_model(
        "resnetblur18" if timm.models.is_model("resnetblur18") else "tresnet_m"
    )
    report = antialias(model, EVERYWHERE, dry_run=True)
    assert any(row.reason == "blurs already" for row in report.skipped)


def test_a_pool_called_as_a_function_is_reported():
    report = antialias(timm.create_model("inception_v3"), dry_run=True)
    reasons = {row.name: row.reason for row in report.skipped}
    assert reasons["Mixed_6a"].startswith("max_pool2d 35×35 → 17×17 called in the forward of Incep")
