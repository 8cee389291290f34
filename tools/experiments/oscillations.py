"""A run that trains a small network to tell oscillations apart."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.oscillation import fully_connected, oscillations, residual
from aa_plugins.evaluation import Protocol, RecordWriter
from aa_plugins.robustness.oscillations import records_of, train
from experiments.plan import Run

KINDS = {"fully-connected": fully_connected, "residual": residual}
UNSEEN = 1_000_000  # added to a run's seed for its test images


def execute(run: Run, work: Path) -> tuple[Path, dict[str, Any]]:
    """Train and test.

    Returns:
        The folder of the classes' records, and what else was measured.
    """
    from experiments.run import commit

    settings, records = dict(run.experiment.train), work / "records"
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    network = network_of(run)
    begun = time.process_time()
    noise, tests = settings.pop("noise"), settings.pop("tests")
    examples = oscillations(settings.pop("each"), noise, run.seed)
    train(network, examples, **settings)
    seconds = round(time.process_time() - begun, 1)
    identity = {"weights": "", "data": str(run.experiment.train), "pipeline": run.name}
    with RecordWriter(records, Protocol(), identity, task="oscillations") as writer:
        for record in records_of(network, oscillations(tests, noise, run.seed + UNSEEN), tests):
            writer.append(record)
    size = {"parameters": sum(p.numel() for p in network.parameters())}
    training = {"commit": commit(), "cpu_seconds": seconds, "peak_memory_mib": 0, "resumed": False}
    return records, {"training": training, "size": size, "filters": {}, "host": {}}


def network_of(run: Run) -> nn.Module:
    """The network that the variant's `network` describes, with its filters."""
    fields = dict(run.experiment.variants[run.variant]["network"])
    network = KINDS[fields.pop("kind")](**fields)
    config = AAConfig.from_dict(run.aa)
    if config.filter != "none":
        antialias(network, config)
    return network
