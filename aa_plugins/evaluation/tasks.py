"""The tasks, one row each."""

from __future__ import annotations

from collections.abc import Mapping

from aa_plugins.evaluation.classification import CLASSIFICATION
from aa_plugins.evaluation.instance import INSTANCE
from aa_plugins.evaluation.semantic import SEMANTIC
from aa_plugins.evaluation.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (SEMANTIC, INSTANCE, CLASSIFICATION)}


def task_of(headers: Mapping[str, Mapping]) -> Task:
    """The task of records, by their headers.

    Args:
        headers: of the runs to compare, by name.

    Raises:
        ValueError: the runs are of several tasks, or of one that isn't known.
    """
    names = {name: header.get("task") for name, header in headers.items()}
    if len(set(names.values())) > 1:
        listed = ", ".join(f"{name}: {task}" for name, task in names.items())
        raise ValueError(f"records of several tasks ({listed}); compare runs of one task")
    (task,) = set(names.values())
    if task not in TASKS:
        raise ValueError(
            f"records of {', '.join(names)} are of task {task!r}, not of {', '.join(TASKS)}; "
            "measure them anew with this version"
        )
    return TASKS[task]
