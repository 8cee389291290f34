"""Analyses and small trainings of the laboratory: their declarations, runs, tables and pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import augmented, oscillations
from experiments.plan import Run, load
from experiments.plots import picture
from experiments.results import Results
from experiments.run import keep
from experiments.tables import renew

DECLARATIONS = Path(__file__).resolve().parents[3] / "configs/experiments"


def test_an_analysis_is_of_the_networks_of_another_experiment():
    experiment = load(DECLARATIONS / "imagenette_corruptions.yaml")
    other = load(DECLARATIONS / "imagenette_stabilize.yaml")
    assert experiment.config == other.config and experiment.seeds == other.seeds
    for run in experiment.runs():
        assert run.source.experiment.name == "imagenette_stabilize"
        assert run.source.stabilize == Run(other, run.variant, run.seed).stabilize
        assert run.source.aa == run.aa


def test_a_variant_that_the_other_experiment_has_not(tmp_path):
    for name in ("imagenette_stabilize", "imagenette_bands"):
        (tmp_path / f"{name}.yaml").write_text((DECLARATIONS / f"{name}.yaml").read_text())
    path = tmp_path / "imagenette_bands.yaml"
    path.write_text(path.read_text().replace("[teacher,", "[theirs,"))
    with pytest.raises(ValueError, match="imagenette_stabilize has no variant 'theirs'"):
        load(path)


@pytest.mark.parametrize("name", ["oscillations", "imagenette_randaugment"])
def test_a_small_training_ends_in_a_record_a_table_and_a_picture(name, tmp_path):
    experiment = load(DECLARATIONS / f"{name}.yaml")
    small = {"oscillations": {"epochs": 1, "each": 1, "tests": 1}}
    changed = small.get(name, {"epochs": 1, "batch": 2, "lr": 0.01})
    experiment = replace(experiment, train={**experiment.train, **changed})
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for number in range(2):
                pixels = random.integers(0, 255, (120, 130, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / label / f"{number}.png")
    last = list(experiment.variants)[-1]
    for variant in (list(experiment.variants)[0], last):
        run = Run(experiment, variant, 0)
        if name == "oscillations":
            measured = oscillations.execute(run, tmp_path / variant)
        else:
            measured = augmented.execute(run, tmp_path / "data", tmp_path / variant)
        keep(run, *measured, tmp_path / "results")
    page = f"<!-- table: {name}/headline -->\n<!-- end -->"
    assert f"| {last} (1) |" in renew(page, DECLARATIONS, tmp_path / "results")
    results = Results.read(experiment, tmp_path / "results")
    assert len(picture(results).axes) >= 2


def test_the_tables_and_the_picture_of_an_analysis(tmp_path):
    """Rows are bands, columns variants, a number a table."""
    from aa_plugins.evaluation import Protocol, RecordWriter
    from tests.robustness.test_tasks import record

    experiment = load(DECLARATIONS / "imagenette_bands.yaml")
    for variant in ("teacher", "blur"):
        with RecordWriter(tmp_path / variant, Protocol(), {}, task=experiment.task) as writer:
            for name, label in (("a", 1), ("b", 2)):
                bands = {f"band_{band}": (label, 3) for band in range(16)}
                writer.append(record(name, label, clean=(label, label), **bands))
        run = Run(experiment, variant, 0)
        keep(run, tmp_path / variant, {"training": {"commit": "x"}}, tmp_path / "results")
    page = "".join(
        f"<!-- table: imagenette_bands/{kind} -->\n<!-- end -->\n"
        for kind in ("right", "consistent")
    )
    right, consistent = renew(page, DECLARATIONS, tmp_path / "results").split("<!-- end -->")[:2]
    assert "| accuracy | teacher | blur |" in right and "| agreement | teacher |" in consistent
    assert right.count("50.00 [") == 32 and consistent.count("0.0000 [") == 32
    assert "over images, taken to be independent" in right
    results = Results.read(experiment, tmp_path / "results")
    assert [axes.get_ylabel() for axes in picture(results).axes] == ["accuracy", "agreement"]
