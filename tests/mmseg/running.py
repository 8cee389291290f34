"""What several tests of MMSegmentation's runs share."""

import argparse
import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(config, shapes, work_dir, **changes):
    """What tools/train_net.py runs, in this process."""
    options = {
        "config_file": str(config),
        "data_root": str(shapes),
        "work_dir": str(work_dir),
        "cfg_options": [],
        "weights": None,
        "resume": False,
        "eval_only": False,
        "amp": False,
        "launcher": "none",
        "local_rank": 0,
        **changes,
    }
    from aa_plugins.mmseg.train import main

    return main(argparse.Namespace(**options))


def summary_of(folder):
    return json.loads((folder / "shift_consistency/summary.json").read_text())


def environment():
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
