"""Does shift consistency predict what a viewer sees? Flicker on a labelled video, of every
segmentor that an experiment has trained, beside what its record says.

A pixel flickers where its predicted class changes from one frame to the next though neither the
motion-compensated image nor the truth does. Correlations are over networks, those that ended as one
that stands before (a teacher; a training that kept its start) left out. Their intervals resample
designs (a variant of an experiment, all its seeds), as seeds of one design aren't independent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.stats import rankdata
from tqdm import tqdm

from aa_plugins.datasets.images import read_image
from aa_plugins.evaluation.motion import optical_flow
from aa_plugins.evaluation.temporal import semantic_flicker, semantic_statistics
from aa_plugins.report.page import write_json
from aa_plugins.report.table import Table
from experiments.plan import Experiment, Run

EXPERIMENTS = (
    "camvid_lite0",
    "camvid_lite0_convert",
    "camvid_lite0_stabilize",
    "camvid_lite0_consistent",
)
MEASURES = ("mASSC", "aliasing_loss", "mIoU")
FILE = "flicker.json"
RESAMPLES = 1_000


def measure(
    experiments: Sequence[Experiment], data_root: Path, work_root: Path, results: Path
) -> Path:
    """Flicker of every run that has a record and weights; what is in the file is kept.

    Returns:
        The file of the rows: experiment, variant, seed, what its record says, `flicker` and `mTC`.
    """
    from experiments.analyses import trained

    path = results / "flicker" / FILE
    rows = json.loads(path.read_text()) if path.is_file() else []
    known = {(row["experiment"], row["variant"], row["seed"]) for row in rows}
    for run in (run for experiment in experiments for run in experiment.runs()):
        record = results / run.experiment.name / run.name / "record.json"
        if (run.experiment.name, run.variant, run.seed) in known or not record.is_file():
            continue
        try:
            network = trained(run, data_root / run.experiment.data, work_root)
        except FileNotFoundError as error:
            print(f"left out: {error}")
            continue
        summary = json.loads(record.read_text())["summary"]
        rows.append(
            {
                "experiment": run.experiment.name,
                "variant": run.variant,
                "seed": run.seed,
                **{name: summary[name]["value"] for name in MEASURES},
                **flicker_of(network, run),
            }
        )
        write_json(path, rows)
    return path


def flicker_of(network: Any, run: Run) -> dict[str, float]:
    """Per cent of pixels that flicker on the test video, and mTC."""
    records, before = [], None
    for sample in tqdm(network.samples(network.default_protocol()), run.name):
        pixels, truth = sample.load(None)
        height, width = pixels.shape[-2:]
        frame = cv2.resize(read_image(sample.file), (width, height), interpolation=cv2.INTER_AREA)
        (scores,) = network.predict([pixels])
        labels = scores.argmax(0).cpu().numpy().astype(np.int64)
        if before is not None:
            motion = optical_flow(before[0], frame)
            both = before[2], np.asarray(truth)
            found = semantic_flicker(before[1], labels, motion, len(scores), both)
            records.append(found)
        before = frame, labels, np.asarray(truth)
    statistics = semantic_statistics(records)
    once = np.ones((1, len(records)))
    return {name: float(leaf.estimate(once)[0]) for name, leaf in statistics.items()}


def table(folder: Path) -> Table:
    """Correlations over networks of what records say with flicker, and with mTC."""
    found = json.loads((folder / "flicker" / FILE).read_text())
    first: dict[tuple, dict] = {}
    for row in found:
        first.setdefault((row["seed"], row["mASSC"], row["flicker"]), row)
    rows = list(first.values())
    cells = [
        (
            f"{measure.replace('_', ' ')} with {against}",
            str(len(rows)),
            *(
                _said(rows, measure, against, ranked, centred)
                for centred in (False, True)
                for ranked in (False, True)
            ),
        )
        for measure in MEASURES
        for against in ("flicker", "mTC")
    ]
    header = ("", "networks", "Pearson", "Spearman", "… of one seed", "… of one seed, by ranks")
    caption = "95 % intervals [over designs: a variant of an experiment, with all its seeds]."
    return Table(header, tuple(cells), caption)


def _said(rows: Sequence[dict], one: str, other: str, ranked: bool, centred: bool) -> str:
    a, b = (_column(rows, name, centred) for name in (one, other))
    designs = [(row["experiment"], row["variant"]) for row in rows]
    members = [[i for i, d in enumerate(designs) if d == name] for name in dict.fromkeys(designs)]
    random, found = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = random.integers(len(members), size=len(members))
        chosen = [i for number in drawn for i in members[number]]
        if np.ptp(a[chosen]) and np.ptp(b[chosen]):
            found.append(_correlation(a[chosen], b[chosen], ranked))
    low, high = np.percentile(found, (2.5, 97.5))
    return f"{_correlation(a, b, ranked):+.2f} [{low:+.2f}, {high:+.2f}]"


def _correlation(a: np.ndarray, b: np.ndarray, ranked: bool) -> float:
    """Pearson's, or Spearman's: that of ranks."""
    if ranked:
        a, b = rankdata(a), rankdata(b)
    return float(np.corrcoef(a, b)[0, 1])


def _column(rows: Sequence[dict], name: str, centred: bool) -> np.ndarray:
    """Values; centred, less the mean of all networks of the same seed, who share a start."""
    values = np.array([row[name] for row in rows])
    if centred:
        seeds = np.array([row["seed"] for row in rows])
        for seed in set(seeds.tolist()):
            values[seeds == seed] -= values[seeds == seed].mean()
    return values
