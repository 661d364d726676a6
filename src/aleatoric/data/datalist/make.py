"""One entry of a datalist as a task: what is sent to another process, and what that makes of it."""

from __future__ import annotations

from typing import NamedTuple

from ..prepared.preparation import Patches
from ..prepared.splits import RandomSplit
from .cases import LoadedCase, load_case, usable
from .entries import Entry, numbered
from .patches import PatchOptions, patches_of
from .plan import Plan

__all__ = ["Task", "make", "make_patches", "sound", "tasks_of"]


class Task(NamedTuple):
    """One entry.

    Attributes:
        entry: image and labels.
        options: what its patches are.
        named: whether the classes' names came from a label file.
        patient_of_file: whether a patient whom the list does not name is the image file's; a given split names all.
    """

    entry: Entry
    options: PatchOptions
    named: bool
    patient_of_file: bool = False


def tasks_of(plan: Plan) -> dict[str, Task]:
    """Unit -> its task, in the list's order."""
    dealt = isinstance(plan.split, RandomSplit)
    return {
        unit: Task(entry, plan.options, plan.named, dealt and not entry.patient_named)
        for unit, entry in numbered(plan.datalist.entries)
    }


def make(task: Task) -> Patches:
    """Read one image and its masks, and make the patches. Raises InputError where the image cannot be used."""
    return make_patches(sound(load_case(task.entry), task), task)


def sound(case: LoadedCase, task: Task) -> LoadedCase:
    """The case with those masks only that fit the data set's classes. Raises InputError where none is left."""
    return usable(case, task.entry, task.options.classes, task.named)


def make_patches(case: LoadedCase, task: Task) -> Patches:
    """The patches of an image and its sound masks. Raises InputError where it does not fit the data set."""
    patches = patches_of(case, task.entry, task.options)
    patient = str(case.scan.info.get("patient_id") or "")
    if task.patient_of_file and patient:
        patches.cases = [{**row, "patient": patient} for row in patches.cases]
    return patches
