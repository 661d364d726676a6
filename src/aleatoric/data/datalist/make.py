"""One entry of a datalist as a task: what is sent to another process, and what that makes of it."""

from __future__ import annotations

from typing import NamedTuple

from .cases import LoadedCase, check_classes, load_case
from .entries import Entry, numbered
from .patches import PatchOptions, patches_of
from .plan import Plan
from ..prepared.preparation import Patches

__all__ = ["Task", "make", "make_patches", "tasks_of"]


class Task(NamedTuple):
    """An entry, what its patches are, and whether the classes' names came from a label file."""

    entry: Entry
    options: PatchOptions
    named: bool


def tasks_of(plan: Plan) -> dict[str, Task]:
    """Unit -> its task, in the list's order."""
    return {unit: Task(entry, plan.options, plan.named) for unit, entry in numbered(plan.datalist.entries)}


def make(task: Task) -> Patches:
    """Read one image and its masks, and make the patches. Raises InputError where the image cannot be used."""
    return make_patches(load_case(task.entry), task)


def make_patches(case: LoadedCase, task: Task) -> Patches:
    """The patches of an image that was read. Raises InputError where it does not fit the data set."""
    check_classes(case, task.entry, task.options.classes, task.named)
    return patches_of(case, task.entry, task.options)
