"""`aa-plugins consistency`: its command line, and what it refuses before any work."""

import json

import pytest

from aa_plugins.command import run
from aa_plugins.command.consistency import json_object
from aa_plugins.command.networks import names_of
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import RecordWriter


def test_names_of_networks():
    names = ["timm:resnet18", "a/x.py", "b/x.py", "shop.nets:build"]
    assert names_of(names) == ["resnet18", "x-1", "x-2", "build"]


@pytest.mark.parametrize("text", ["[1,2]", "controls=false", "3", '"grid"', "{"])
def test_a_protocol_that_is_no_object_is_refused(text):
    with pytest.raises(ValueError, match="--protocol"):
        json_object("--protocol", text)


def said(capsys, *arguments):
    assert run("consistency", list(map(str, arguments))) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either networks, with --weights, or --records"),
        (["timm:resnet18"], "timm:resnet18 has no weights: name them"),
        (["timm:resnet18", "timm:resnet34", "--weights", "a.pth"], "2 networks, but 1 weights"),
        (["timm:resnet18", "--weights", "nope.pth"], "nope.pth"),
        (["--records", "folder"], "give each as NAME=DIR"),
        (["--records", "a=nowhere"], "no records in nowhere"),
    ],
)
def test_what_is_wrong_is_one_line(capsys, tmp_path, arguments, message):
    assert message in said(capsys, *arguments, "--out", tmp_path)


def test_records_are_not_discarded(capsys, tmp_path):
    with RecordWriter(tmp_path / "resnet18", Protocol(stride=4), {}) as writer:
        writer.append({"image_id": 1})
    message = said(capsys, "timm:resnet18", "--weights", "a.pth", "--out", tmp_path)
    assert "holds records: --resume goes on with them" in message


def test_records_without_a_header_are_named(capsys, tmp_path):
    (tmp_path / "records.0of1.jsonl").write_text(json.dumps({"image_id": 1}) + "\n")
    assert "header" in said(capsys, "--records", f"a={tmp_path}")
