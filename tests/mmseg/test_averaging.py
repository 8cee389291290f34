import pytest

pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")

import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from aa_plugins import get_config_file
from aa_plugins.hosts.module import Logits
from aa_plugins.training import PhaseAverage


def segmentor(**fields):
    config = Config.fromfile(str(get_config_file("mmseg/deeplabv3plus_r18_camvid_baseline.py")))
    torch.manual_seed(0)
    return MODELS.build({**config.model, **fields}).eval()


def test_predictions_are_means_over_phases_and_weights_are_those_of_the_plain_segmentor():
    plain = segmentor()
    plain.decode_head.conv_seg.weight.data.mul_(1000)  # a fresh head says the same everywhere
    averaged = segmentor(type="PhaseAveragedEncoderDecoder", phases=2, stride=16)
    averaged.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 96)
    meta = {"ori_shape": (64, 96), "img_shape": (64, 96), "pad_shape": (64, 96)}
    with torch.no_grad():
        found = averaged.encode_decode(images, [meta])
        expected = PhaseAverage(Logits(plain), 16, 2)(images)
        single = plain.encode_decode(images, [meta]).softmax(1)
    assert torch.allclose(found, expected, atol=1e-4)
    assert (found.exp() - single).abs().max() > 1e-3


def test_another_number_of_phases_is_refused():
    with pytest.raises(ValueError, match="3 phases: choose a power of two, or all 256"):
        segmentor(type="PhaseAveragedEncoderDecoder", phases=3, stride=16)
