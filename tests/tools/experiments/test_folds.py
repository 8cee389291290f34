"""A data set divided anew: every image is tested on once, with its own annotations."""

import json

import pytest

from experiments.folds import divided


@pytest.fixture
def data(tmp_path):
    for part, ids in (("train", range(8)), ("val", range(8, 10))):
        images = [{"id": i, "file_name": f"{i}.png"} for i in ids]
        rows = [{"id": 10 * i + n, "image_id": i} for i in ids for n in range(i % 3)]
        content = {"images": images, "annotations": rows, "categories": []}
        (tmp_path / f"instances_{part}.json").write_text(json.dumps(content))
    return tmp_path


def test_every_image_is_tested_on_once_and_never_trained_on_then(data, tmp_path):
    tested = []
    for fold in range(5):
        paths = divided(data, 5, fold, tmp_path / str(fold))
        train, val = (json.loads(open(paths[part][0]).read()) for part in ("train", "val"))
        ids = {part: {i["id"] for i in c["images"]} for part, c in (("t", train), ("v", val))}
        assert not ids["t"] & ids["v"] and len(ids["t"] | ids["v"]) == 10
        assert len(val["annotations"]) == sum(i % 3 for i in ids["v"])
        assert {i["file_name"] for i in val["images"]} == {
            f"{'train' if i < 8 else 'val'}/{i}.png" for i in ids["v"]
        }
        assert len(list((tmp_path / str(fold) / "photos").iterdir())) == len(ids["t"])
        tested.append(ids["v"])
    assert tested[0] == {8, 9}
    assert sorted(i for ids in tested for i in ids) == list(range(10))


def test_a_fold_that_there_isnt(data, tmp_path):
    with pytest.raises(ValueError, match="fold 5: seeds of 5 folds are 0 to 4"):
        divided(data, 5, 5, tmp_path)


def test_ids_that_both_files_use(data, tmp_path):
    path = data / "instances_val.json"
    path.write_text(path.read_text().replace('"id": 8', '"id": 7'))
    with pytest.raises(ValueError, match="overlap"):
        divided(data, 5, 1, tmp_path)
