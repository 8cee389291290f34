"""Training with the consistency term, as a type of model in any config."""

import pytest

pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from aa_plugins.mmseg import consistent
from tests.mmseg.running import run
from tests.mmseg.test_averaging import segmentor

TYPE = "ConsistentEncoderDecoder"


@pytest.fixture
def batch():
    torch.manual_seed(1)
    images = torch.randn(2, 3, 80, 96)
    samples = [SegDataSample() for _ in images]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 11, (1, 80, 96)))
    return images, samples


def at(monkeypatch, *offsets):
    monkeypatch.setattr(consistent, "drawn_offsets", lambda count, stride: list(offsets))


def test_losses_of_one_view_are_the_plain_segmentors(batch, monkeypatch):
    images, samples = batch
    plain = segmentor()
    moved = segmentor(type=TYPE)
    moved.load_state_dict(plain.state_dict())
    at(monkeypatch, (3, 5), (3, 5))
    found = moved.loss(images, samples)
    assert found.pop("loss_consistency") < 1e-6
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=sample.gt_sem_seg.data[:, 3:67, 5:85])
    expected = plain.loss(images[..., 3:67, 5:85], samples)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_the_term_is_how_far_views_are_from_their_average(batch, monkeypatch):
    images, samples = batch
    moved = segmentor(type=TYPE, consistency=2.0)
    moved.decode_head.conv_seg.weight.data.mul_(1000)
    at(monkeypatch, (0, 0), (1, 2))
    loss = moved.loss(images, samples)["loss_consistency"]
    full = [moved._forward(images[..., y : y + 64, x : x + 80]) for y, x in ((0, 0), (1, 2))]
    full = [torch.nn.functional.interpolate(one, (64, 80), mode="bilinear") for one in full]
    logs = full[0][..., 1:, 2:].log_softmax(1), full[1][..., :-1, :-2].log_softmax(1)
    mean = (logs[0].exp() + logs[1].exp()) / 2
    known = torch.xlogy(mean, mean)
    expected = sum((known - mean * one).sum(1).mean() for one in logs)
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-5)
    loss.backward()
    assert next(moved.backbone.parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize("size", [(80, 96), (95, 81), (79, 112)])
def test_sides_of_views_are_multiples_of_the_stride(batch, monkeypatch, size):
    """A network that pads by the remainder samples on the grid that it has on whole images."""
    images, samples = batch
    moved, seen = segmentor(type=TYPE), []
    monkeypatch.setattr(moved, "extract_feat", lambda pixels: seen.append(pixels.shape[-2:]))
    images = torch.nn.functional.interpolate(images, size)
    with pytest.raises(TypeError):  # a head of no features
        moved.loss(images, samples)
    assert all(side % 16 == 0 and 0 <= whole - side - 15 < 16 for side, whole in zip(*seen, size))


def test_crops_that_cannot_move_are_refused(batch):
    images, samples = batch
    with pytest.raises(ValueError, match="too small to move within a stride of 16"):
        segmentor(type=TYPE).loss(images[..., :46, :], samples)


def test_one_line_of_a_config_trains_and_resumes(tiny_config, shapes, tmp_path):
    options = [f"model.type={TYPE}", "train_cfg.max_iters=2"]
    run(tiny_config, shapes, tmp_path, cfg_options=options, amp=True)
    options = [f"model.type={TYPE}", "train_cfg.max_iters=4"]
    run(tiny_config, shapes, tmp_path, cfg_options=options, amp=True, resume=True)
    assert (tmp_path / "iter_4.pth").is_file()
    text = "".join(path.read_text() for path in tmp_path.rglob("*.log"))
    assert text.count("loss_consistency: ") == 4
