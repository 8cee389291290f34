"""The package's weights under each host's names; the package itself isn't needed."""

import sys
from pathlib import Path

import pytest
import timm
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from efficientnet_lite import as_timm, for_host


@pytest.fixture(scope="module")
def own():
    torch.manual_seed(0)
    return timm.create_model("tf_efficientnet_lite0").state_dict()


def test_other_names_in_the_same_order(own):
    packaged = {f"other.{i}": value for i, value in enumerate(own.values())}
    found = as_timm(packaged, "lite0")
    assert list(found) == list(own)
    assert all(found[key] is packaged[f"other.{i}"] for i, key in enumerate(own))


def test_the_package_of_another_version_is_refused(own):
    with pytest.raises(ValueError, match="is it the package of this version?"):
        as_timm(own, "lite1")


@pytest.mark.parametrize("host", ["mmseg", "detectron2"])
def test_a_hosts_backbone_takes_all_and_has_no_more(own, host):
    if host == "mmseg":
        pytest.importorskip("mmseg")
        from aa_plugins.mmseg.backbones import AATIMMBackbone

        options = {"out_indices": (1, 2, 3, 4), "output_stride": 16, "aa": {"filter": "none"}}
        wanted = AATIMMBackbone("tf_efficientnet_lite0", **options).state_dict()
    else:
        pytest.importorskip("detectron2")
        from aa_plugins.detectron2.timm_backbone import TIMMBackbone

        backbone = TIMMBackbone("tf_efficientnet_lite0", {"filter": "none"})
        wanted = {f"backbone.bottom_up.{key}" for key in backbone.state_dict()}
    assert set(for_host(own, host)) == set(wanted)
