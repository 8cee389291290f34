"""docs/timm.md says what its records say, which keep what it promises, and a command makes it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm

from aa_plugins.timm.models import TIMM_MODULES
from tests.timm.records import ABOVE, CONVERTED, PLAIN, ROOT, ROWS
from timm_sweep.sweep import document, read, sweep, write

COMMAND = [sys.executable, "tools/timm_sweep", "--modules", "starnet", "convmixer"]


def test_the_page_is_that_of_its_records():
    assert (ROOT / "docs" / "timm.md").read_text() == document(ROWS)


def test_every_module_has_a_record():
    versions = {row["timm"] for row in ROWS.values()}
    if versions != {timm.__version__}:
        pytest.skip(f"the records are of timm {versions}, this is {timm.__version__}")
    assert set(ROWS) == set(TIMM_MODULES)


@pytest.mark.parametrize("row", CONVERTED, ids=lambda row: row["model"])
def test_a_record_of_a_converted_model(row):
    assert 0 <= max(row["difference"], row["odd_difference"]) <= 1e-4
    assert 0 <= row["feature_difference"] <= ABOVE.get(row["model"], 1e-4)
    assert row["finite_filters"] == row["moved_filters"] == row["converted"] > 0
    assert row["extra_parameters"] > 0 and row["extra_macs"] > 0
    assert row["maps_as_announced"]


@pytest.mark.parametrize("row", CONVERTED, ids=lambda row: row["model"])
def test_the_comparison_could_see(row):
    assert row["constant_parameters"] == row["uncalibrated_batch_norms"] == 0
    assert 0 < row["largest_output"] < float("inf")
    assert max(row["roll"], row["feature_roll"]) > 0.01
    assert row["blur"] > 0.01


@pytest.mark.parametrize("row", CONVERTED, ids=lambda row: row["model"])
def test_what_compilers_do_to_a_converted_model(row):
    """Nothing fails that doesn't fail for the plain model too.

    A network that amplifies the rounding of float32 can't be computed in two ways that agree
    better than each agrees with float64.
    """
    for check in ("compile", "export", "onnx"):
        if check in row:
            assert row[check] <= max(1e-4, row["rounding"])
        else:
            assert f"{check}_error_of_plain" in row


def test_what_has_no_site_embeds_patches():
    assert all("patch embedding" in " ".join(row["reasons"]) for row in PLAIN)
    assert len(CONVERTED) + len(PLAIN) >= 92


@pytest.mark.slow
def test_the_command_makes_a_page_and_goes_on_where_it_stopped(tmp_path):
    records, page = tmp_path / "timm.jsonl", tmp_path / "timm.md"
    command = [*COMMAND, "--checks", "identity", "--results", records, "--table", page]
    subprocess.run(command, cwd=ROOT, check=True, timeout=600)
    rows = read(records)
    assert rows["starnet"]["difference"] <= 1e-4 < rows["starnet"]["blur"]
    assert "| starnet | starnet_s050 | 0.54 M | 5 | 0 | +" in page.read_text()
    assert "| starnet | 0 | 0 | not measured |" in page.read_text()
    assert "| convmixer | convmixer_768_32 | patch embedding" in page.read_text()
    # Another result, which a second run keeps; a record of another timm, which it makes anew.
    rows["starnet"]["difference"] = 0.5
    rows["convmixer"]["timm"] = "0"
    write(records, rows)
    subprocess.run(command, cwd=ROOT, check=True, timeout=600)
    assert read(records)["starnet"]["difference"] == 0.5
    assert read(records)["convmixer"]["timm"] == timm.__version__
    assert "| starnet | 5e-01 | 0 |" in page.read_text()


def test_a_check_that_hangs_or_fails_is_a_result(tmp_path):
    records = tmp_path / "timm.jsonl"
    rows = sweep(records, ["sites"], ["starnet"], limit=0.01)
    assert rows == read(records)
    assert rows["starnet"]["sites_error"] == "no result within 0 s"
    missing = {"module": "starnet", "model": "no_such", "timm": timm.__version__, "done": []}
    write(records, {"starnet": missing})
    assert "no_such" in sweep(records, ["sites"], ["starnet"])["starnet"]["sites_error"]
