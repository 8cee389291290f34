import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from aa_plugins.datasets import CLASSES, LAYOUTS, draw_scene, write_shapes
from aa_plugins.datasets.layouts import CITYSCAPES_CLASSES

SIZE, SEED = (48, 64), 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shapes")
    for layout in LAYOUTS:
        write_shapes(root / layout, layout, train=2, val=3, size=SIZE, seed=SEED)
    return {layout: root / layout for layout in LAYOUTS}


def scene(split: int, index: int):
    return draw_scene(*SIZE, np.random.default_rng([SEED, split, index]))


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_coco_masks_are_exact(folders):
    for split, (name, count) in enumerate((("train", 2), ("val", 3))):
        coco = COCO(folders["coco"] / f"instances_{name}.json")
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == [c.name for c in CLASSES]
        assert len(coco.imgs) == count
        for index, image in enumerate(coco.loadImgs(sorted(coco.imgs))):
            drawn = scene(split, index)
            path = folders["coco"] / name / image["file_name"]
            assert np.array_equal(read(path), drawn.image)
            assert (image["height"], image["width"]) == SIZE
            labels = np.zeros(SIZE, np.uint8)
            for annotation in coco.imgToAnns[image["id"]]:
                mask = coco.annToMask(annotation).astype(bool)
                assert annotation["area"] == mask.sum() and annotation["iscrowd"] == 0
                rows, columns = np.nonzero(mask)
                x, y = columns.min(), rows.min()
                box = [x, y, columns.max() - x + 1, rows.max() - y + 1]
                assert annotation["bbox"] == box
                assert not labels[mask].any()
                labels[mask] = annotation["category_id"]
            assert np.array_equal(labels, drawn.labels)


def test_camvid_files(folders):
    for index in range(3):
        name = f"val/{index + 1:06d}.png"
        drawn = scene(1, index)
        assert np.array_equal(read(folders["camvid"] / "images" / name), drawn.image)
        assert np.array_equal(read(folders["camvid"] / "labels" / name), drawn.labels)


def test_voc_files(folders):
    voc = folders["voc"] / "VOCdevkit" / "VOC2012"
    names = (voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    assert len(names) == 3
    for index, name in enumerate(names):
        labels = Image.open(voc / "SegmentationClass" / f"{name}.png")
        assert np.array_equal(np.asarray(labels), scene(1, index).labels)
        # VOC's published colours: aeroplane, bicycle, bird.
        assert labels.getpalette()[3:12] == [128, 0, 0, 0, 128, 0, 128, 128, 0]
        image = read(voc / "JPEGImages" / f"{name}.jpg").astype(float)
        assert np.abs(image - scene(1, index).image).mean() < 20


def test_cityscapes_files(folders):
    names, label_ids, train_ids = zip(*CITYSCAPES_CLASSES, strict=True)
    for index in range(2):
        drawn = scene(0, index)
        truth = f"gtFine/train/shapes/shapes_{index + 1:06d}_000000_gtFine"
        truth = folders["cityscapes"] / truth
        labels = read(f"{truth}_labelIds.png")
        assert np.array_equal(labels, np.array(label_ids)[drawn.labels])
        assert np.array_equal(read(f"{truth}_labelTrainIds.png"), np.array(train_ids)[drawn.labels])
        instances = read(f"{truth}_instanceIds.png")
        assert np.array_equal(np.where(instances >= 1000, instances // 1000, instances), labels)
        for identifier in np.unique(instances[instances >= 1000]):
            assert len(np.unique(drawn.instances[instances == identifier])) == 1
        assert len(np.unique(instances)) == len(np.unique(drawn.instances))
        polygons = json.loads(Path(f"{truth}_polygons.json").read_text())
        assert (polygons["imgHeight"], polygons["imgWidth"]) == SIZE
        assert {item["label"] for item in polygons["objects"]} <= set(names)


def test_same_seed_writes_the_same_bytes(folders, tmp_path):
    for layout, folder in folders.items():
        write_shapes(tmp_path / layout, layout, train=2, val=3, size=SIZE, seed=SEED)
        files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        again = tmp_path / layout
        assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
        for path in files:
            assert (folder / path).read_bytes() == (again / path).read_bytes(), path


@pytest.mark.parametrize("layout", ["voc", "cityscapes"])
def test_mmseg_reads_it(folders, layout):
    datasets = pytest.importorskip("mmseg.datasets")
    from mmseg.utils import register_all_modules

    register_all_modules()
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
    if layout == "voc":
        dataset = datasets.PascalVOCDataset(
            data_root=str(folders["voc"] / "VOCdevkit" / "VOC2012"),
            data_prefix={"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
            ann_file="ImageSets/Segmentation/val.txt",
            pipeline=pipeline,
        )
        ids = np.arange(len(CLASSES) + 1)
    else:
        dataset = datasets.CityscapesDataset(
            data_root=str(folders["cityscapes"]),
            data_prefix={"img_path": "leftImg8bit/val", "seg_map_path": "gtFine/val"},
            pipeline=pipeline,
        )
        ids = np.array([train_id for _, _, train_id in CITYSCAPES_CLASSES])
    assert len(dataset) == 3
    for index in range(3):
        drawn = scene(1, index)
        assert dataset[index]["img"].shape == (*SIZE, 3)
        assert np.array_equal(dataset[index]["gt_seg_map"], ids[drawn.labels])


def test_detectron2_reads_coco(folders):
    pytest.importorskip("detectron2", reason="Detectron2 isn't installed (make detectron2)")
    from detectron2.data.datasets import load_coco_json

    root = folders["coco"]
    records = load_coco_json(str(root / "instances_val.json"), str(root / "val"))
    for index, record in enumerate(records):
        assert len(record["annotations"]) == len(scene(1, index).classes)


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="'kitti', choose one of coco, voc"):
        write_shapes(tmp_path / "new", "kitti")
    with pytest.raises(ValueError, match="val=0"):
        write_shapes(tmp_path / "new", "voc", train=1, val=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError, match="full holds something"):
        write_shapes(tmp_path / "full", "voc", train=1, val=1)
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "mine").touch()
    with pytest.raises(FileExistsError, match="new.partial is there.*Remove it"):
        write_shapes(tmp_path / "new", "voc", train=1, val=1)
    assert (tmp_path / "new.partial" / "mine").exists()
