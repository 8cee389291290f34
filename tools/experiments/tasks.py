"""What an experiment may measure: shift consistency, or an analysis of robustness."""

from __future__ import annotations

from collections.abc import Sequence

from aa_plugins.evaluation.task import Task
from aa_plugins.evaluation.tasks import TASKS as CONSISTENCY
from aa_plugins.robustness.oscillations import OSCILLATIONS
from aa_plugins.robustness.tasks import ANALYSES

TASKS: dict[str, Task] = {**CONSISTENCY, **ANALYSES, OSCILLATIONS.name: OSCILLATIONS}


def is_analysis(task: str) -> bool:
    """Whether a task is "KIND/ANALYSIS" of networks that another experiment has trained."""
    return task in ANALYSES


def numbers(columns: Sequence[str]) -> list[str]:
    """What an analysis measures, such as accuracy and agreement, by its table's columns of clean
    images."""
    return [name.removeprefix("clean/") for name in columns if name.startswith("clean/")]
