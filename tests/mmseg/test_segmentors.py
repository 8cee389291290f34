import math
from pathlib import Path

import pytest

pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")

import mmseg
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.views import extract
from aa_plugins.mmseg.evaluate import protocol_of
from aa_plugins.mmseg.runs import without_downloads
from aa_plugins.mmseg.segmentors import (
    check_segmentor,
    conversion_of,
    network_input,
    predict_views,
    protocol_for,
    stride_of,
)

ROOT = Path(__file__).resolve().parents[2]
# The largest stride among the maps that each network's head reads.
STRIDES = {"r18": 16, "r101": 8, "convnext_tiny": 32, "swin_tiny": 32}


def build(config, **changes):
    cfg = Config.fromfile(str(config))
    without_downloads(cfg.model)
    cfg.merge_from_dict({f"model.{key}": value for key, value in changes.items()})
    torch.manual_seed(0)
    return MODELS.build(cfg.model).eval()


@pytest.mark.parametrize("name", STRIDES)
def test_the_ready_configs_are_measured_at_their_networks_stride(name):
    config = ROOT / f"configs/mmseg/deeplabv3plus_{name}_camvid_adaptive.py"
    assert protocol_of(config)["stride"] == STRIDES[name]


def test_overrides_change_the_stride(tiny_config):
    dense = ["model.backbone.strides=(1,2,1,1)", "model.backbone.dilations=(1,1,2,4)"]
    assert protocol_of(tiny_config, dense)["stride"] == 8


def test_a_head_that_reads_a_finer_map_lowers_the_stride(tiny_config):
    finer = {"decode_head.in_index": 1, "decode_head.in_channels": 16}
    assert stride_of(build(tiny_config)) == 16
    assert stride_of(build(tiny_config, **finer)) == 8
    assert stride_of(build(tiny_config, **{"backbone.with_cp": True})) == 16


def test_a_unet_is_measured_at_its_bottleneck():
    norm = dict(type="BN")
    backbone = dict(type="UNet", base_channels=4, norm_cfg=norm)
    head = dict(type="FCNHead", in_channels=4, in_index=4, channels=4, num_convs=1, num_classes=2)
    model = MODELS.build(
        dict(
            type="EncoderDecoder",
            backbone=backbone,
            decode_head=head,
            train_cfg={},
            test_cfg=dict(mode="whole"),
        )
    )
    assert stride_of(model) == 16


@pytest.mark.parametrize(
    "name, stride",
    [
        ("segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py", 32),
        # Its context pools by 8 at stride 64.
        ("ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py", 512),
    ],
)
def test_strides_of_the_hosts_own_configs(name, stride):
    assert stride_of(build(Path(mmseg.__file__).parent / ".mim/configs" / name)) == stride


def test_a_network_that_looks_at_values_is_measured_on_itself(tiny_config):
    model = build(tiny_config)
    extract_feat = model.extract_feat

    def looking(x):
        assert float(x.sum()) == 0
        return extract_feat(x)

    model.extract_feat = looking
    assert stride_of(model) == 16


def test_a_network_of_one_size_is_told_to_state_its_stride(tiny_config):
    model = build(tiny_config)
    model.backbone.register_forward_pre_hook(lambda _, args: args[0] + torch.zeros(1, 1, 96, 96))
    with pytest.raises(ValueError, match=r"128×128.*protocol=dict\(stride=32\)"):
        stride_of(model)
    assert protocol_for(model, {"stride": 32}).stride == 32


def test_a_stated_stride_is_checked(tiny_config):
    model = build(tiny_config)
    assert protocol_for(model, {"stride": 32}).stride == 32
    assert protocol_for(model, {}).stride == 16
    with pytest.raises(ValueError, match="stride=8.*stride 16: leave stride out"):
        protocol_for(model, {"stride": 8})


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_views_are_run_as_the_model_is_tested(tiny_config, mode):
    model = build(tiny_config, test_cfg=dict(mode=mode, crop_size=(48, 48), stride=(32, 32)))
    pixels = torch.randn(3, 96, 112)
    plan = Protocol(stride=16, shifts=((1, 0), (0, 3)), controls=False).plan(96, 112, "a")
    found = list(predict_views(model, pixels, plan, view_batch=2))
    assert len(found) == len(plan.views) == 3
    differs = False
    for view, probabilities in zip(plan.views, found):
        image = extract(pixels, view)[None]
        expected = model.predict(image)[0].seg_logits.data.softmax(0)
        torch.testing.assert_close(probabilities, expected, rtol=1e-4, atol=1e-5)
        whole = model.encode_decode(image, [{"img_shape": image.shape[-2:]}]).softmax(1)[0]
        differs |= not torch.allclose(probabilities, whole, rtol=1e-3, atol=1e-4)
    assert differs == (mode == "slide")


def test_a_binary_head_gives_the_labels_of_its_threshold(tiny_config):
    head = {"num_classes": 2, "out_channels": 1, "threshold": 0.6}
    changes = {f"decode_head.{key}": value for key, value in head.items()}
    changes["decode_head.loss_decode.use_sigmoid"] = True
    model = build(tiny_config, **changes)
    check_segmentor(model, classes=2)
    pixels = torch.randn(3, 64, 64)
    plan = Protocol(stride=16, shifts=((1, 0),), controls=False).plan(64, 64, "a")
    image = extract(pixels, plan.views[0])[None]
    logits = model.encode_decode(image, [{"img_shape": image.shape[-2:]}])
    # Half of the logits on either side of the threshold's, the inverse of the sigmoid at 0.6.
    model.decode_head.conv_seg.bias.data += math.log(0.6 / 0.4) - logits.median()
    views = list(predict_views(model, pixels, plan, view_batch=1))
    expected = model.predict(image)[0].pred_sem_seg.data[0]
    assert not views[0].is_floating_point()
    assert torch.equal(views[0], expected.long()) and 0 < views[0].float().mean() < 1


def test_padding_to_a_divisor_is_no_part_of_a_view(tiny_config):
    model = build(tiny_config)
    image = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    plain = network_input(model, image)
    model.data_preprocessor.test_cfg = {"size_divisor": 32}
    assert torch.equal(network_input(model, image), plain)


def test_what_predicts_no_classes_is_refused(tiny_config):
    with pytest.raises(ValueError, match="Linear isn't one: take ShiftConsistencyHook"):
        check_segmentor(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="decode_head.num_classes=3"):
        check_segmentor(build(tiny_config), classes=3)


def test_what_was_converted_is_said_in_a_line(tiny_config):
    assert "backbone has 5 filters (adaptive)" in conversion_of(build(tiny_config))
    plain = conversion_of(build(tiny_config, **{"backbone.aa.filter": "none"}))
    assert plain.startswith("nothing was converted")
