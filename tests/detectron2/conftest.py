import pytest
import torch

from aa_plugins.datasets import write_shapes


@pytest.fixture(autouse=True)
def a_seed():
    """Detectron2's own seeding is left alone; tests that draw weights do so from here."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """A folder that holds `shapes/`, as $DETECTRON2_DATASETS does."""
    root = tmp_path_factory.mktemp("datasets")
    write_shapes(root / "shapes", "coco", train=6, val=4, size=(96, 128))
    return root


@pytest.fixture
def datasets(shapes, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shapes))
    return shapes


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """Random weights of the tiny Mask R-CNN with adaptive filters, which finds things."""
    from detectron2.modeling import build_model

    from aa_plugins.detectron2.config import load_yaml
    from tests.detectron2.shared import SHAPES, TINY, decide

    torch.manual_seed(1)
    model = decide(build_model(load_yaml(SHAPES, [*TINY, "MODEL.AA.FILTER", "adaptive"])))
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save({"model": model.state_dict()}, path)
    return str(path)
