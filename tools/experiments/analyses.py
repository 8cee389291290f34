"""A run that measures the robustness of a network that another experiment has trained."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

from aa_plugins.datasets.images import ClassifiedImages
from aa_plugins.evaluation import Protocol
from aa_plugins.hosts import Host, host_of
from aa_plugins.hosts.interface import Network, load_network
from aa_plugins.hosts.module import ModuleNetwork, Preparation
from aa_plugins.robustness import conditions, corruptions, spectrum, worst_shift
from experiments.plan import Run


def execute(run: Run, data_root: Path, work_root: Path) -> tuple[Path, dict[str, Any]]:
    """Measure, going on where an earlier attempt stopped.

    Returns:
        The folder of the images' records, and what else was measured.

    Raises:
        FileNotFoundError: where the network isn't trained.
    """
    from experiments.run import commit

    network = network_of(run, data_root / run.experiment.data, work_root)
    records = work_root / run.experiment.name / run.name / "records"
    begun, cpu = time.monotonic(), time.process_time()
    measure(run, network, records)
    evaluation = {
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    weights = {"of": run.experiment.of, "hash": network.weights_hash()}
    return records, {"training": {"commit": commit()}, "evaluation": evaluation, "weights": weights}


def measure(run: Run, network: Network, records: Path) -> None:
    """The records of a run, as its declaration says."""
    options = dict(run.experiment.analysis)
    common = {"images": options.pop("images", None), "sequences": run.experiment.sequences}
    common["resume"] = True
    fields = {**network.protocol(), **run.experiment.protocol}
    analysis = run.experiment.task.split("/")[1]
    if analysis == "shifts":
        protocol = worst_shift.shift_protocol(fields, options["radius"])
        worst_shift.measure_worst(network, protocol, folder=records, **options, **common)
        return
    if analysis == "bands":
        seen = spectrum.band_conditions(**options)
    else:
        seen = corruptions.corruption_conditions(**{k: tuple(v) for k, v in options.items()})
    protocol = Protocol.from_dict({"controls": False, **fields})
    conditions.measure(network, seen, protocol, records, analysis, **common)


def network_of(run: Run, data: Path, work_root: Path) -> Network:
    """The network that the experiment `of` has trained, on its test images."""
    source = run.source
    if not source.experiment.config.startswith("timm:"):
        return trained(source, data, work_root)
    work = work_root / source.experiment.name / source.name
    from experiments.stabilized import CLASSES, network_and_report

    size = tuple(run.experiment.protocol["crop"])
    preparation = Preparation(size, (127 / 255,) * 3, (128 / 255,) * 3)
    model, _ = network_and_report(source, data, work)
    images = ClassifiedImages(data / "val", CLASSES)
    return ModuleNetwork(
        model, "classification", images, CLASSES, preparation, name=run.name, stride=32
    )


def trained(run: Run, data: Path, work_root: Path) -> Network:
    """The network of a host that a run has left, on its test images.

    Raises:
        FileNotFoundError: where it isn't trained.
    """
    from experiments.run import (
        ROOT,
        detectron2_overrides,
        mmseg_overrides,
        starting_weights,
        weights_of,
    )

    work = work_root / run.experiment.name / run.name
    if not run.experiment.photos:
        weights = weights_of(work) if (work / "train.json").is_file() else work
    elif run.is_stabilized:
        weights = work / "stabilized.pth"
    else:
        weights = starting_weights(run, work_root)
    if not weights.is_file():
        raise FileNotFoundError(
            f"{run.experiment.name}/{run.name} isn't trained: first tools/experiments run "
            f"{run.experiment.name} --variants {run.variant} --seeds {run.seed}"
        )
    config = ROOT / run.experiment.config
    mmseg = host_of(config) is Host.MMSEGMENTATION
    overrides = mmseg_overrides(run) if mmseg else detectron2_overrides(run, work, data)
    return load_network(str(config), weights=weights, data_root=data, overrides=tuple(overrides))
