"""Running one run of an experiment: the project's own tools, one after the other, resumable.

A run's work folder holds checkpoints and logs, `consistency/` the records of its evaluation, and a
file for each finished step with what it cost. What is worth keeping of it all goes to the results:
`record.json`, and the images' records, compressed.
"""

from __future__ import annotations

import json
import lzma
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from aa_plugins.evaluation.records import read_records, record_files
from aa_plugins.hosts import Host, host_of
from aa_plugins.report.page import write_json
from experiments.folds import divided
from experiments.plan import Run
from experiments.tasks import TASKS, is_analysis

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "onedl-mmsegmentation", "onedl-mmengine", "detectron2", "numpy")


def execute(run: Run, data_root: Path, work_root: Path, results: Path) -> Path:
    """Train and evaluate, going on where an earlier attempt stopped, and write the record.

    Returns:
        The folder of the record.

    Raises:
        FileNotFoundError: where the weights to start from aren't there.
        RuntimeError: where a step fails, naming its log.
    """
    work = work_root / run.home / run.name
    work.mkdir(parents=True, exist_ok=True)
    if is_analysis(run.experiment.task):
        from experiments import analyses

        return keep(run, *analyses.execute(run, data_root, work_root), results)
    if run.experiment.task == "oscillations":
        from experiments import oscillations

        return keep(run, *oscillations.execute(run, work), results)
    if run.experiment.train:
        from experiments import augmented

        return keep(run, *augmented.execute(run, data_root / run.experiment.data, work), results)
    if run.experiment.task == "classification":
        from experiments import stabilized

        return keep(run, *stabilized.execute(run, data_root, work), results)
    mmseg = host_of(ROOT / run.experiment.config) is Host.MMSEGMENTATION
    data = data_root / run.experiment.data
    overrides = mmseg_overrides(run) if mmseg else detectron2_overrides(run, work, data)
    train = [ROOT / "tools/train_net.py", "--config-file", ROOT / run.experiment.config]
    trained = (work / "train.json").is_file()
    start = None if trained else starting_weights(run, work_root)
    if run.experiment.photos:
        weights = starting_weights(run, work_root)
        if run.is_stabilized:
            train = stabilizing(run, weights, data, overrides, work)
            weights = work / "stabilized.pth"
    elif mmseg:
        # The test is the next step, which can be resumed: here one image will do.
        options = [*overrides, "test_dataloader.dataset.indices=1"]
        if start:  # mmengine would resume what `load_from` names
            options += ["model.init_cfg.type=Pretrained", f"model.init_cfg.checkpoint={start}"]
        train += ["--data-root", data, "--work-dir", work, "--resume", "--cfg-options", *options]
    else:
        options = [*overrides, *([f"MODEL.WEIGHTS={start}"] if start else [])]
        pairs = [part for option in options for part in option.split("=", 1)]
        train += ["--resume", *pairs]
    if run.is_stabilized or not run.experiment.photos:
        training = step("train", work, train, {"DETECTRON2_DATASETS": str(data)})
    else:
        training = {"seconds": 0.0, "cpu_seconds": 0.0, "resumed": False, "commit": commit()}
    if not run.experiment.photos:
        weights = weights_of(work)
    evaluate = [ROOT / "tools/eval_consistency.py", "--config-file", ROOT / run.experiment.config]
    evaluate += ["--weights", weights, "--data-root", data, "--resume"]
    evaluate += ["--out", work / "consistency"]
    if run.experiment.protocol:
        evaluate += ["--protocol", json.dumps(dict(run.experiment.protocol))]
    evaluation = step("evaluate", work, [*evaluate, "--cfg-options", *overrides])
    records = work / "consistency" / Path(run.experiment.config).stem
    costs = {"training": training, "evaluation": evaluation}
    about = inspect(run, weights, data, overrides)
    measured = {"host": host_metrics(work), **about, **costs}
    return keep(run, records, measured, results)


def stabilizing(
    run: Run, teacher: Path, data: Path, overrides: Sequence[str], work: Path
) -> list[str | Path]:
    """The command that stabilizes a segmentor or detector and leaves work/stabilized.pth."""
    fields = [f"{name}={value}" for name, value in run.stabilize.items()]
    command: list[str | Path] = ["-m", "aa_plugins", "stabilize", ROOT / run.experiment.config]
    photos = work if run.experiment.folds else data
    command += ["--weights", teacher, "--data-root", data]
    command += ["--photos", photos / run.experiment.photos]
    return [*command, "--cfg-options", *overrides, "--set", *fields, "--out", work, "--resume"]


def inspect(run: Run, weights: Path, data: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """`size` of a run's network, and what its `filters` do, by the host that builds it."""
    config = ROOT / run.experiment.config
    if host_of(config) is Host.MMSEGMENTATION:
        from aa_plugins.mmseg import evaluate as host
    else:
        from aa_plugins.detectron2 import evaluate as host
    filters = host.filters_at_work(config, weights, data, overrides)
    return {"size": host.size_of(config, overrides), "filters": filters}


def mmseg_overrides(run: Run) -> list[str]:
    """KEY=VALUE of mmengine that make the variant and its seed."""
    fields = [f"model.backbone.aa.{key}={_literal(value)}" for key, value in run.aa.items()]
    if run.phases > 1:
        fields += ["model.type=PhaseAveragedEncoderDecoder", f"model.phases={run.phases}"]
        fields.append(f"model.stride={run.experiment.stabilize['stride']}")
    return [f"randomness.seed={run.seed}", *run.options, *fields]


def detectron2_overrides(run: Run, work: Path, data: Path) -> list[str]:
    """KEY=VALUE of Detectron2 that make the variant, its seed and its fold."""
    fields = [f"MODEL.AA.{key.upper()}={value}" for key, value in run.aa.items()]
    if run.experiment.folds:
        paths = divided(data, run.experiment.folds, run.seed, work)
        name = f"DATASETS.COCO_PATHS.{run.experiment.data}"
        fields += [f"{name}_{part}={found}" for part, found in paths.items()]
    return [f"SEED={run.seed}", f"OUTPUT_DIR={work}", *run.options, *fields]


def host_metrics(work: Path) -> dict[str, float]:
    """Average precisions that Detectron2 measured itself on whole images after the training."""
    path = work / "metrics.json"
    lines = path.read_text().splitlines() if path.is_file() else []
    found: dict[str, float] = {}
    for line in lines:
        found.update({name: v for name, v in json.loads(line).items() if "/AP" in name})
    return found


def step(
    name: str,
    work: Path,
    command: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run a tool once; what it cost is kept, and where that is known already nothing is run.

    An attempt that was interrupted leaves a mark, as the time that it took is lost.

    Returns:
        `seconds` of wall time and of `cpu_seconds`, `peak_memory_mib` of the resident set,
        whether it was `resumed` (then times are those of the last attempt alone), and the
        `commit` that it was begun with; with those that went on, where they differ.

    Raises:
        RuntimeError: where the tool fails.
    """
    done, begun, log = (work / f"{name}{suffix}" for suffix in (".json", ".begun", ".log"))
    if done.is_file():
        return json.loads(done.read_text())
    resumed = begun.exists()
    commits = dict.fromkeys([*(begun.read_text().split() if resumed else ()), commit()])
    begun.write_text(" ".join(commits))
    start = time.monotonic()
    with log.open("a") as out:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise RuntimeError(f"{name} failed ({process.returncode}), see {log}:\n{tail}")
    cost = {
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_memory_mib": round(used.ru_maxrss / 1024),
        "resumed": resumed,
        "commit": " ".join(commits),
    }
    write_json(done, cost)
    return cost


def starting_weights(run: Run, work_root: Path) -> Path | None:
    """The checkpoint that an experiment's trainings go on from, of the same seed.

    Raises:
        FileNotFoundError: where that training isn't finished.
    """
    start = run.experiment.start
    if start is None:
        return None
    folder = work_root / start.folder(run.seed)
    if not (folder / "train.json").is_file():
        raise FileNotFoundError(
            f"{run.name} starts from {start.folder(run.seed)}, which isn't trained: first "
            f"tools/experiments run {start.experiment} --variants {start.variant} "
            f"--seeds {run.seed}"
        )
    return weights_of(folder)


def weights_of(work: Path) -> Path:
    """The last checkpoint that a host says it has written in a work folder."""
    path = Path((work / "last_checkpoint").read_text().strip())
    return work / path.name


def keep(
    run: Run,
    records: Path,
    measured: Mapping[str, Mapping[str, Any]],
    results: Path,
) -> Path:
    """Write what is worth keeping of a finished run to the results.

    Returns:
        The folder written.
    """
    folder = results / run.home / run.name
    folder.mkdir(parents=True, exist_ok=True)
    for file in record_files(records):
        packed = folder / f"{file.name}.xz"
        packed.write_bytes(lzma.compress(file.read_bytes(), preset=9))
    header, found = read_records(folder)
    content = {
        "experiment": run.home,
        "variant": run.variant,
        "seed": run.seed,
        "config": run.experiment.config,
        "options": list(run.options),
        "aa": run.aa,
        "commit": measured["training"]["commit"],
        "date": datetime.now(timezone.utc).date().isoformat(),
        "environment": environment(),
        **measured,
        "protocol": header["protocol"],
        "summary": TASKS[run.experiment.task].summarise(found),
    }
    write_json(folder / "record.json", content)
    return folder


def environment() -> dict[str, Any]:
    """Versions and hardware."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    threads = torch.get_num_threads()
    return {"python": platform.python_version(), **versions, "threads": threads, "gpu": gpu}


def commit() -> str:
    """The commit of the code, with a + where tracked files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def _literal(value: object) -> str:
    """A value as mmengine's command line reads it back."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, (list, tuple)) else str(value)
