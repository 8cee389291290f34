"""Training a detector with the consistency term, as a meta-architecture in any yaml config."""

import pytest
import torch

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from aa_plugins.detectron2 import consistent
from aa_plugins.detectron2.evaluate import build_detector
from tests.detectron2.shared import SHAPES, TINY, decide
from tests.detectron2.test_train import run

TYPE = "MODEL.META_ARCHITECTURE=ConsistentRCNN"
OPTIONS = [f"{key}={value}" for key, value in zip(TINY[::2], TINY[1::2])]


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return decide(build_detector(SHAPES, [*OPTIONS, TYPE, "MODEL.AA.CONSISTENCY=2.0"]))


def image(boxes):
    masks = torch.zeros(len(boxes), 96, 128, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes):
        mask[int(top) : int(bottom), int(left) : int(right)] = True
    truth = Instances((96, 128))
    truth.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    truth.gt_masks, truth.gt_classes = BitMasks(masks), torch.arange(len(boxes))
    pixels = torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)
    return {"image": pixels, "height": 96, "width": 128, "instances": truth}


def losses(detector, inputs):
    detector.train()
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    torch.manual_seed(1)
    with EventStorage():
        return detector(inputs)


def test_views_at_one_place_agree_and_others_do_not(detector, monkeypatch):
    inputs = [image([(40.0, 40, 80, 60)]), image([(50.0, 35, 75, 60), (33.0, 33, 60, 60)])]
    found = {}
    for name, offsets in (("same", [(3, 5)] * 2), ("moved", [(0, 0), (9, 14)])):
        monkeypatch.setattr(consistent, "drawn_offsets", lambda count, stride, o=offsets: o)
        found[name] = losses(detector, inputs)["loss_consistency"]
    assert abs(found["same"].detach()) < 1e-4
    assert found["moved"] > 0.01
    detector.zero_grad(set_to_none=True)
    found["moved"].backward()
    trained = {name for name, p in detector.named_parameters() if p.grad is not None}
    assert any("backbone" in name for name in trained) and any("mask_head" in n for n in trained)


def test_views_hold_their_part_of_the_truth(detector, monkeypatch):
    monkeypatch.setattr(consistent, "drawn_offsets", lambda count, stride: [(0, 0), (9, 14)])
    boxes = [(10.0, 20, 50, 60), (0.0, 0, 13, 8), (60.0, 20, 80, 40)]
    first, second = detector._views(image(boxes))
    assert first["instances"].gt_classes.tolist() == [0, 1, 2]
    assert second["instances"].gt_classes.tolist() == [0, 2]  # the second lies outside
    assert second["instances"].gt_boxes.tensor.tolist() == [[0, 11, 36, 51], [46, 11, 66, 31]]
    assert second["instances"].whole.tolist() == [False, True]
    areas = second["instances"].gt_masks.tensor.flatten(1).sum(1)
    assert areas.tolist() == [36 * 40, 20 * 20]
    shared = detector._shared([first["instances"], second["instances"]])
    assert [one.gt_classes.tolist() for one in shared] == [[2], [2]]


def test_images_without_a_shared_object_have_no_term(detector):
    assert losses(detector, [image([])])["loss_consistency"] == 0


def test_it_predicts_as_the_plain_detector(detector):
    plain = build_detector(SHAPES, OPTIONS)
    plain.load_state_dict(detector.state_dict())
    one = image([])
    with torch.no_grad():
        a, b = (net.eval()([one])[0]["instances"] for net in (detector, plain))
    assert len(a) and torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)


def test_the_weight_alone_is_refused():
    with pytest.raises(ValueError, match="CONSISTENCY is 2.0, but .* use 'ConsistentRCNN'"):
        build_detector(SHAPES, [*OPTIONS, "MODEL.AA.CONSISTENCY=2.0"])


@pytest.mark.parametrize("name", ["CascadeROIHeads", "Res5ROIHeads"])
def test_other_heads_are_refused(name):
    heads = [f"MODEL.ROI_HEADS.NAME={name}", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG=True"]
    if name == "Res5ROIHeads":
        heads.append("MODEL.ROI_HEADS.IN_FEATURES=['p4']")
    with pytest.raises(ValueError, match=f"{name} has others: train it as GeneralizedRCNN"):
        build_detector(SHAPES, [*OPTIONS, TYPE, *heads])


def test_one_node_of_a_config_trains_and_resumes(datasets, tmp_path):
    node = "MODEL.META_ARCHITECTURE", "ConsistentRCNN", "SOLVER.AMP.ENABLED", "True"
    run(tmp_path, *node, "SOLVER.MAX_ITER", "1")
    run(tmp_path, *node, "SOLVER.MAX_ITER", "2", resume=True)
    assert "loss_consistency" in (tmp_path / "metrics.json").read_text()
    assert (tmp_path / "model_final.pth").is_file()
