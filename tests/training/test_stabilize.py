import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from aa_plugins import antialias
from aa_plugins.config import AAConfig
from aa_plugins.layers import filters_of
from aa_plugins.training import Settings, stabilize
from tests.training.shared import Classifier, Equivariant, Subsampling, images, seeded

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"stride": 4, "size": (24, 24), "views": 3, "batch": 2, "steps": 12, "check_every": 4}


def converted(teacher, **fields):
    student = deepcopy(teacher)
    torch.manual_seed(1)
    antialias(student, AAConfig(stem=True, groups=2, **fields), example=torch.zeros(1, 3, 24, 24))
    return student


def run(student, teacher, **changes):
    options = {k: changes.pop(k) for k in ("folder", "resume", "held_out") if k in changes}
    rows = changes.pop("images", images())
    settings = Settings(**{**SETTINGS, **changes})
    return stabilize(student, teacher, rows, settings, progress=False, **options)


@pytest.mark.parametrize("network", [Subsampling, Classifier])
@pytest.mark.parametrize("train", ["all", "filters"])
def test_student_comes_nearer_to_the_average(network, train):
    teacher = seeded(network)
    student = converted(teacher, filter="adaptive")
    changes = {"steps": 60, "lr": 3e-3, "filter_lr": 3e-2, "train": train}
    report = run(student, teacher, held_out=images(16, seed=1), **changes)
    assert report.after.loss < 0.9 * report.before.loss
    assert report.after.average >= report.before.average
    assert report.steps == 60 and report.kept > 0
    assert "agreement with the average" in str(report)


def test_gradients_reach_the_student_and_never_the_teacher():
    teacher = seeded(Subsampling, norm=True)
    before = deepcopy(teacher.state_dict())
    for parameter in teacher.parameters():
        assert parameter.requires_grad
    teacher.train()
    student = converted(teacher)
    start = deepcopy(student.state_dict())
    run(student, teacher)
    assert teacher.training and teacher.norm.training
    for name, parameter in teacher.named_parameters():
        assert parameter.grad is None and parameter.requires_grad, name
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, value in student.named_parameters():
        assert not torch.equal(value, start[name]), name


def test_an_equivariant_teacher_leaves_nothing_to_learn():
    teacher = seeded(Equivariant)
    student = deepcopy(teacher)
    report = run(student, teacher, margin=3, held_out=images(4, seed=1))
    assert report.before.loss < 1e-6 and report.before.self == 100


def test_filters_alone():
    teacher = seeded(Subsampling, norm=True)
    student = converted(teacher)
    start = deepcopy(student.state_dict())
    run(student, teacher, train="filters", estimate=0)
    own = {f"{name}.{key}" for name, layer in filters_of(student) for key in layer.state_dict()}
    changed = {k for k, v in student.state_dict().items() if not torch.equal(v, start[k])}
    assert changed and changed <= own | {"norm.weight", "norm.bias"}
    assert changed & own and "norm.weight" in changed
    assert all(parameter.requires_grad for parameter in student.parameters())


@pytest.mark.parametrize("statistics", ["frozen", "data"])
def test_statistics_of_norms(statistics):
    teacher = seeded(Subsampling, norm=True)
    student = deepcopy(teacher)
    run(student, teacher, statistics=statistics)
    moved = not torch.equal(student.norm.running_mean, teacher.norm.running_mean)
    assert moved == (statistics == "data")
    assert not student.training


class Interrupted(list):
    """Images whose last ones can't be read any more after so many reads."""

    def __init__(self, rows, reads):
        super().__init__(rows)
        self.reads = reads

    def __getitem__(self, index):
        self.reads -= 1
        if self.reads < 0:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_resumed_equals_uninterrupted(tmp_path):
    teacher = seeded(Subsampling, norm=True)
    held_out, ends = images(4, seed=1), {}
    for name in ("whole", "interrupted"):
        student, folder = converted(teacher, init="identity"), tmp_path / name
        options = {"held_out": held_out, "folder": folder, "statistics": "data"}
        if name == "interrupted":
            with pytest.raises(KeyboardInterrupt):
                run(student, teacher, images=Interrupted(images(), 11), **options)
            student = converted(teacher, init="identity")
        report = run(student, teacher, resume=True, **options)
        ends[name] = student.state_dict(), report
    (a, report_a), (b, report_b) = ends["whole"], ends["interrupted"]
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert report_a.losses == report_b.losses and list(report_a.losses) == [0, 4, 8, 12]
    assert (report_a.teacher, report_a.before, report_a.after) == (
        report_b.teacher,
        report_b.before,
        report_b.after,
    )


def test_resuming_with_other_settings_is_refused(tmp_path):
    teacher = seeded(Subsampling)
    run(deepcopy(teacher), teacher, folder=tmp_path)
    with pytest.raises(ValueError, match="run with lr=0.0001, this one has 0.5"):
        run(deepcopy(teacher), teacher, folder=tmp_path, resume=True, lr=0.5)


def test_early_stop_keeps_the_best():
    """At an absurd rate nothing gets better: the start is kept, and the run ends early."""
    teacher = seeded(Subsampling)
    student = converted(teacher, init="identity")
    start = deepcopy(student.state_dict())
    changes = {"lr": 3.0, "steps": 40, "check_every": 2, "patience": 3, "estimate": 0}
    report = run(student, teacher, held_out=images(4, seed=1), **changes)
    assert report.steps == 6 and report.kept == 0
    assert all(torch.equal(value, start[key]) for key, value in student.state_dict().items())
    assert report.after == report.before


def test_memory_does_not_grow_with_the_number_of_views():
    """Of all graphs, one view's is alive: saved tensors are freed before the next forward pass."""
    teacher = seeded(Subsampling)
    alive, most = 0, {}

    class Held:
        def __init__(self, tensor):
            nonlocal alive
            self.tensor, self.size = tensor, tensor.numel()
            alive += self.size
            most[views] = max(most.get(views, 0), alive)

        def __del__(self):
            nonlocal alive
            alive -= self.size

    for views in (2, 8):
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            run(deepcopy(teacher), teacher, views=views, steps=1)
    # The overlap, and so the loss, is smaller with more views.
    assert most[8] <= most[2]


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_mixed_precision_trains(precision):
    teacher = seeded(Subsampling)
    student = converted(teacher)
    report = run(
        student, teacher, steps=40, lr=3e-3, precision=precision, held_out=images(4, seed=1)
    )
    assert report.after.loss < report.before.loss
    assert all(p.dtype == torch.float32 for p in student.parameters())


def test_refusals():
    teacher = seeded(Subsampling)
    with pytest.raises(ValueError, match="no images"):
        run(deepcopy(teacher), teacher, images=[])
    with pytest.raises(ValueError, match="holds no window of 43×43"):
        run(deepcopy(teacher), teacher, size=(40, 40))
    with pytest.raises(ValueError, match="leaves nothing to train"):
        run(deepcopy(teacher), teacher, train="filters")
    with pytest.raises(ValueError, match="needs the folder"):
        run(deepcopy(teacher), teacher, resume=True)
    with pytest.raises(ValueError, match="isn't finite"):
        run(deepcopy(teacher), teacher, images=[torch.full((3, 27, 31), torch.nan)])
    with pytest.raises(ValueError, match="views=17: choose 2 to 16"):
        Settings(**{**SETTINGS, "views": 17})
    with pytest.raises(ValueError, match="precision='int8' is unknown"):
        Settings(**SETTINGS, precision="int8")


PROCESS = """
import sys, torch
from torch import distributed
from tests.training.shared import Subsampling, images, seeded
from tests.training.test_stabilize import converted, run

rank, processes, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if processes > 1:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=processes
    )
teacher = seeded(Subsampling, norm=True)
student = converted(teacher)
report = run(student, teacher, batch=4, images=images(7), held_out=images(5, seed=1))
torch.save((student.state_dict(), report.losses), f"{folder}/{rank}of{processes}.pth")
"""


def test_two_processes_equal_one(tmp_path):
    for processes in (1, 2):
        running = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESS, str(rank), str(processes), str(tmp_path)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )
            for rank in range(processes)
        ]
        assert [process.wait() for process in running] == [0] * processes
    names = ("0of1", "0of2", "1of2")
    (one, losses), (first, losses_first), (second, _) = (
        torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in names
    )
    for key, value in one.items():
        assert torch.equal(first[key], second[key]), key
        assert torch.allclose(value, first[key], atol=1e-5), key
    assert losses == pytest.approx(losses_first, abs=1e-6)


def test_without_steps_statistics_alone_are_taken_over():
    teacher = seeded(Subsampling, norm=True)
    student = converted(teacher)
    weights = {name: p.clone() for name, p in student.named_parameters()}
    before = student.norm.running_mean.clone()
    report = run(student, teacher, steps=0)
    assert report.steps == report.kept == 0 and not student.training
    assert all(torch.equal(p, weights[name]) for name, p in student.named_parameters())
    assert not torch.equal(student.norm.running_mean, before)
