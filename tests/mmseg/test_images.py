import shutil

import numpy as np
import pytest

pytest.importorskip("mmseg", reason="MMSegmentation isn't installed: make setup")

from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image

from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import read_records
from aa_plugins.mmseg.evaluate import evaluate, protocol_of
from aa_plugins.mmseg.images import check_files, fault_of, ids_of
from tests.mmseg.running import run, summary_of

PIPELINE = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]


def save(folder, name, array, orientation=None, **options):
    image = Image.fromarray(array)
    if orientation:
        exif = image.getexif()
        exif[0x0112] = orientation
        options["exif"] = exif
    image.save(folder / name, **options)
    return str(folder / name)


def picture(height=40, width=60):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def labels(height=40, width=60):
    return np.zeros((height, width), np.uint8)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_whole_files_pass(tmp_path, suffix):
    image = save(tmp_path, f"a.{suffix}", picture())
    assert fault_of(image, save(tmp_path, "l.png", labels())) is None
    assert fault_of(image, None) is None
    assert fault_of("s3://bucket/a.png", None) is None


def test_faults_are_named(tmp_path):
    image, good = save(tmp_path, "a.jpg", picture()), save(tmp_path, "l.png", labels())
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-300])
    (tmp_path / "text.png").write_text("no image")
    assert "cut.jpg is cut off" in fault_of(str(tmp_path / "cut.jpg"), good)
    assert "text.png can't be read" in fault_of(str(tmp_path / "text.png"), good)
    assert "no such image" in fault_of(str(tmp_path / "none.png"), good)
    off = save(tmp_path, "off.png", labels(40, 61))
    assert "off.png is 40x61, its image 40x60" in fault_of(image, off)
    assert "RGB picture" in fault_of(image, save(tmp_path, "rgb.png", picture()))


@pytest.mark.parametrize(
    "orientation, size, fault",
    [
        (6, (60, 40), None),  # labels of what is seen
        (6, (40, 60), "turned by its EXIF orientation 6"),  # labels of what is stored
        (3, (40, 60), "whether its labels are can't be told"),
        (1, (40, 60), None),
    ],
)
def test_images_turned_by_their_exif_tag(tmp_path, orientation, size, fault):
    image = save(tmp_path, "a.jpg", picture(), orientation)
    found = fault_of(image, save(tmp_path, "l.png", labels(*size)))
    assert found is None if fault is None else fault in found


def test_ids_are_unique_and_duplicates_an_error(tmp_path):
    parts = []
    for sequence in ("seq1", "seq2"):
        for kind, array in (("img", picture()), ("lab", labels())):
            (tmp_path / sequence / kind).mkdir(parents=True)
            save(tmp_path / sequence / kind, "0001.png", array)
        prefix = dict(img_path=f"{sequence}/img", seg_map_path=f"{sequence}/lab")
        options = dict(data_root=str(tmp_path), data_prefix=prefix, pipeline=PIPELINE)
        parts.append(dict(type="ShapesDataset", **options))
    dataset = DATASETS.build(dict(type="ConcatDataset", datasets=parts))
    assert list(ids_of(dataset).values()) == ["seq1/img/0001.png", "seq2/img/0001.png"]
    twice = DATASETS.build(dict(type="ConcatDataset", datasets=[parts[0], parts[0]]))
    with pytest.raises(ValueError, match="seq1/img/0001.png"):
        ids_of(twice)
    (tmp_path / "seq1/img/0001.png").write_bytes(b"")
    check_files(dataset)
    assert len(dataset) == 1 and dataset[0]["img_path"].endswith("seq2/img/0001.png")
    ids, bad = dataset.checked
    assert len(ids) == 2 and [image.image_id for image in bad] == ["seq1/img/0001.png"]


@pytest.fixture(scope="module")
def damaged(shapes, tmp_path_factory):
    """Five images: one cut off, one with RGB labels, one too small, two in order."""
    data = tmp_path_factory.mktemp("damaged") / "data"
    shutil.copytree(shapes, data)
    names = sorted(path.name for path in (data / "images/val").iterdir())
    whole = (data / "images/val" / names[0]).read_bytes()
    (data / "images/val" / names[0]).write_bytes(whole[: len(whole) // 2])
    save(data / "labels/val", names[1], picture(112, 144))
    save(data / "images/val", names[2], picture(30, 144))
    save(data / "labels/val", names[2], labels(30, 144))
    return data, [f"images/val/{name}" for name in names]


def test_bad_images_are_left_out_named_and_counted(damaged, tested, tiny_config, tmp_path, caplog):
    data, ids = damaged
    weights = str(tested[0] / "weights.pth")
    with caplog.at_level("WARNING"):
        metrics = run(tiny_config, data, tmp_path / "run", eval_only=True, weights=weights)
    assert summary_of(tmp_path / "run")["mASSC"]["images"] == 2
    assert 0 < metrics["mIoU"] < 100
    header, records = read_records(tmp_path / "run/shift_consistency")
    assert [record["image_id"] for record in records] == ids[3:]
    assert set(header["left_out"]) == set(ids[:3])
    for image_id, reason in zip(ids, ("cut off", "RGB picture", "too small")):
        assert reason in header["left_out"][image_id] and image_id in caplog.text
    protocol = Protocol.from_dict(protocol_of(tiny_config))
    assert evaluate(tiny_config, weights, protocol, tmp_path / "tool", data) == records
    assert read_records(tmp_path / "tool")[0]["left_out"] == header["left_out"]
    resumed = evaluate(tiny_config, weights, protocol, tmp_path / "tool", data, resume=True)
    assert resumed == records


def test_files_are_read_by_configs_of_every_kind(shapes, tiny_config):
    cfg = Config.fromfile(str(tiny_config))
    cfg.test_dataloader.dataset.data_root = str(shapes)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    check_files(dataset)
    assert len(dataset) == 5 and dataset.checked[1] == []
