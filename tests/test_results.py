"""The README's tables are those of the committed records."""

from pathlib import Path

from aa_plugins.evaluation import semantic
from aa_plugins.evaluation.records import read_records
from aa_plugins.report.comparison import comparison

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = ("baseline", "blur", "adaptive")


def test_the_camvid_table_is_that_of_its_records():
    folder = ROOT / "docs/results/camvid_r18"
    records = {variant: read_records(folder / variant)[1] for variant in VARIANTS}
    assert [len(found) for found in records.values()] == [101, 101, 101]
    columns = ("mIoU", "mASSC", "controls/same_phase", "aliasing_loss", "fidelity")
    report = comparison("", records, semantic.summarise, semantic.compare, columns)
    text = (ROOT / "README.md").read_text()
    for table in report.tables():
        assert table.markdown() in text
