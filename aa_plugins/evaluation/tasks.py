"""The tasks, one row each."""

from aa_plugins.evaluation.classification import CLASSIFICATION
from aa_plugins.evaluation.instance import INSTANCE
from aa_plugins.evaluation.semantic import SEMANTIC
from aa_plugins.evaluation.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (SEMANTIC, INSTANCE, CLASSIFICATION)}


def task_named(name: str) -> Task:
    """The task of this name, as a record's header has it.

    Raises:
        ValueError: there is none.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; choose one of {', '.join(TASKS)}")
    return TASKS[name]
