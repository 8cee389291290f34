from pathlib import Path

import pytest

from aa_plugins.config import AAConfig
from aa_plugins.hosts import host_of
from experiments.plan import load

ROOT = Path(__file__).resolve().parents[3]
DECLARATIONS = sorted((ROOT / "configs/experiments").glob("*.yaml"))
SMALL = """
title: Small
config: configs/mmseg/deeplabv3plus_r18_shapes_baseline.py
data: shapes
task: semantic
seeds: [3, 1]
columns: [mIoU, mASSC]
options: [train_cfg.max_iters=9]
variants:
  none: {filter: none}
  wide: {filter: bank, taps: [3, 5], options: [optim_wrapper.optimizer.lr=1]}
claims:
  - {text: Wide is better, metric: mASSC, of: wide, against: none}
"""


@pytest.fixture
def small(tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path / "small.yaml"


@pytest.mark.parametrize("path", DECLARATIONS, ids=lambda path: path.stem)
def test_declarations_name_configs_and_filters_that_exist(path):
    experiment = load(path)
    named = ":" in experiment.config  # timm:NAME
    assert host_of(experiment.config if named else ROOT / experiment.config)
    made = {
        (
            AAConfig(**run.aa),
            run.options,
            run.phases,
            run.is_stabilized and str(run.stabilize | {"seed": 0}),
            *(str(experiment.variants[run.variant].get(n)) for n in ("network", "randaugment")),
        )
        for run in experiment.runs()
        if run.seed == experiment.seeds[0]
    }
    assert len(made) == len(experiment.variants)
    names = [run.name for run in experiment.runs()]
    assert len(set(names)) == len(names) == len(experiment.variants) * len(experiment.seeds)


def test_runs_go_seed_by_seed(small):
    runs = load(small).runs()
    assert [run.name for run in runs] == ["none_seed3", "wide_seed3", "none_seed1", "wide_seed1"]
    assert runs[1].aa == {"filter": "bank", "taps": [3, 5]}


def test_a_variant_adds_its_own_options(small):
    none, wide, *_ = load(small).runs()
    assert none.options == ("train_cfg.max_iters=9",)
    assert wide.options == ("train_cfg.max_iters=9", "optim_wrapper.optimizer.lr=1")


def test_a_seed_adds_its_own_options_before_those_of_the_variant(small):
    text = small.read_text().replace("columns:", "seed_options: {3: [data.names=3]}\ncolumns:")
    small.write_text(text)
    runs = load(small).runs()
    assert runs[1].options[1:] == ("data.names=3", "optim_wrapper.optimizer.lr=1")
    assert runs[3].options[1:] == ("optim_wrapper.optimizer.lr=1",)


def test_a_shared_variant_is_the_other_experiments_run(small):
    other = small.with_stem("other")
    other.write_text(SMALL.replace("title: Small", "title: Other\nshared: {none: small}"))
    none, wide, *_ = load(other).runs()
    assert (none.home, wide.home) == ("small", "other")
    small.write_text(SMALL.replace("none: {filter: none}", "none: {filter: none, phases: 2}"))
    with pytest.raises(ValueError, match="small declares variant 'none' otherwise, or not"):
        load(other)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("task: semantic", "task: panoptic", "task='panoptic'; choose one of"),
        ("title: Small", "titel: Small", "unknown field 'titel'"),
        ("columns:", "seed_options: {2: [a=1]}\ncolumns:", "seed_options are of seed 2, which"),
        ("against: none", "against: nothing", "is about unknown 'nothing'"),
        ("better, metric", "better, too, metric", "unknown field 'too' of a claim: quote texts"),
        ("against: none", "direction: up", "direction='up': choose one of higher, lower, zero"),
        ("wide: {", "wide one: {", "variant 'wide one' names a folder"),
        ("task:", "start: {experiment: small, variant: tall}\ntask:", "variant 'tall', seeds"),
        ("filter: bank", "filter: bang", "filter='bang' is unknown"),
        ("taps: [3, 5]", "tabs: [3, 5]", "unknown AAConfig field 'tabs'"),
    ],
)
def test_errors_name_value_and_remedy(small, old, new, message):
    small.write_text(SMALL.replace(old, new))
    with pytest.raises(ValueError, match=message):
        load(small)


def test_an_unknown_experiment_lists_those_there_are(small):
    with pytest.raises(FileNotFoundError, match="there are small"):
        load(small.with_name("large.yaml"))
