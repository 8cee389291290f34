import os
from pathlib import Path

import pytest
import torch

from aa_plugins.evaluation import Protocol, RecordWriter, dataset_ids, image_ids, run_identity
from aa_plugins.evaluation.identity import fingerprint, image_id


def test_images_of_one_name_in_folders_of_one_name_stay_apart(tmp_path):
    paths = [tmp_path / f"seq{s}/img/{n:04}.png" for s in (1, 2) for n in (1, 2, 3)]
    found = image_ids(paths, tmp_path)
    assert found == [f"seq{s}/img/{n:04}.png" for s in (1, 2) for n in (1, 2, 3)]
    assert image_ids(paths) == found  # the folder that all share is the root
    assert image_ids(paths[:3]) == ["0001.png", "0002.png", "0003.png"]
    assert image_id(f"{tmp_path}/seq1/../seq1/./img/a.png", str(tmp_path) + os.sep) == (
        "seq1/img/a.png"
    )


def test_an_image_twice_and_one_from_elsewhere_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 images with the id 'a.png'.*only one"):
        image_ids([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "x/../a.png"], tmp_path)
    with pytest.raises(ValueError, match="outside of the data root"):
        image_id(tmp_path / "a.png", tmp_path / "data")


def test_two_data_sets_with_the_same_ids_stay_apart():
    sets = {"a_val": [1, 2, 3], "b_val": [2, 3, 4, 5]}
    found = dataset_ids(sets)
    assert len({i for ids in found.values() for i in ids}) == 7
    assert found["b_val"][0] == "b_val/2"
    assert dataset_ids({"a_val": [1, 2]}) == {"a_val": [1, 2]}
    with pytest.raises(ValueError, match="data set 'a_val' has 2 images with the id 1"):
        dataset_ids({"a_val": [1, 2, 1]})


def parts(folder: Path) -> dict:
    (folder / "images").mkdir(parents=True)
    for name in ("a", "b"):
        (folder / "images" / f"{name}.png").write_bytes(name.encode())
    (folder / "weights.pth").write_bytes(b"weights")
    return {
        "model": {"type": "EncoderDecoder", "aa": {"filter": "blur"}},
        "weights": folder / "weights.pth",
        "files": [folder / "images/a.png", folder / "images/b.png"],
        "data": {"classes": ["road", "sky"]},
        "pipeline": [{"type": "Resize", "scale": (256, 192)}],
    }


@pytest.mark.parametrize("part", ["model", "weights", "files", "image", "data", "pipeline"])
def test_every_part_of_a_run_counts_and_a_changed_one_isnt_resumed(tmp_path, part):
    old = parts(tmp_path / "old")
    new = parts(tmp_path / "new")
    assert run_identity(**old) == run_identity(**new)  # places don't count
    if part == "image":
        new["files"][1].write_bytes(b"B")
    elif part == "files":
        new["files"].reverse()
    elif part == "weights":
        new["weights"].write_bytes(b"other")
    else:
        new[part] = [new[part], "more"]
    identities = [run_identity(**old), run_identity(**new)]
    with RecordWriter(tmp_path, Protocol(), identities[0]) as writer:
        writer.append({"image_id": "a"})
    assert RecordWriter(tmp_path, Protocol(), identities[0], resume=True).done == {"a"}
    with pytest.raises(ValueError, match="was written with identity .* resume with"):
        RecordWriter(tmp_path, Protocol(), identities[1], resume=True)


def test_software_counts(tmp_path):
    old = parts(tmp_path / "old")
    identity = run_identity(**old, software=("timm", "no-such-package"))
    assert identity["software"]["torch"].startswith(torch.__version__.split("+")[0])
    assert "timm" in identity["software"] and "no-such-package" not in identity["software"]
    with pytest.raises(FileNotFoundError, match="no weights"):
        run_identity(**{**old, "weights": tmp_path / "none.pth"})


def test_fingerprints_of_state_dicts_and_objects():
    state = {"w": torch.ones(3, dtype=torch.bfloat16), "n": torch.tensor(1)}
    assert fingerprint(state) == fingerprint({name: t.clone() for name, t in state.items()})
    assert fingerprint(state) != fingerprint({**state, "n": torch.tensor(2)})
    assert fingerprint({"w": torch.ones(2, 3)}) != fingerprint({"w": torch.ones(3, 2)})
    assert fingerprint([object()]) == fingerprint([object()])
    assert fingerprint({"a": {1, 2}, "p": Path("x")}) == fingerprint({"p": Path("x"), "a": {2, 1}})


def test_going_on_without_an_identity_is_said(tmp_path, caplog):
    with RecordWriter(tmp_path, Protocol(), {"weights": "w"}) as writer:
        writer.append({"image_id": "a"})
    RecordWriter(tmp_path, Protocol(), {"weights": "w"}, resume=True).close()
    assert "1 records" in caplog.text and "of the same data, pipeline" in caplog.text
    caplog.clear()
    identity = run_identity(**parts(tmp_path / "parts"))
    for resume in (False, True):
        with RecordWriter(tmp_path / "out", Protocol(), identity, resume=resume) as writer:
            if not resume:
                writer.append({"image_id": "a"})
    assert not caplog.text
