"""What lies in the folders of the QUBIQ challenge: nine tasks, and the cases, images and raters' masks of one of them.

A case is a folder ``caseN`` or ``caseN-M`` below the folder of its data set (``brain-growth``, ``kidney``, ...), with
or without a level ``Training`` / ``Validation`` between them. Whether it is for training or validation is read from the
nearest folder that says so (``Training``, ``validation_data_qubiq2021_QC``, ...). Pixels are not read here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from ...errors import InputError

__all__ = ["TASKS", "QubiqCase", "QubiqTask", "find_cases"]


class QubiqTask(NamedTuple):
    """One task of the challenge."""

    dataset: str  # name of its folder
    number: int  # ..._task01_...
    raters: int
    modality: str  # "CT" or "MR"
    channels: tuple[str, ...]
    structure: str  # name of class 1
    volume: bool  # 3D, slices along the first axis; otherwise one image
    fit: str  # the papers' way to the patch: "crop" or "resize"


_SEQUENCES = ("MR 1", "MR 2", "MR 3", "MR 4")  # the challenge does not say which sequence is which

#: name of the task -> what it is
TASKS: dict[str, QubiqTask] = {
    "brain-growth": QubiqTask("brain-growth", 1, 7, "MR", ("MR",), "brain growth", False, "resize"),
    "brain-tumor-1": QubiqTask("brain-tumor", 1, 3, "MR", _SEQUENCES, "brain tumor, task 1", False, "resize"),
    "brain-tumor-2": QubiqTask("brain-tumor", 2, 3, "MR", _SEQUENCES, "brain tumor, task 2", False, "resize"),
    "brain-tumor-3": QubiqTask("brain-tumor", 3, 3, "MR", _SEQUENCES, "brain tumor, task 3", False, "resize"),
    "kidney": QubiqTask("kidney", 1, 3, "CT", ("CT",), "kidney", False, "resize"),
    "prostate-1": QubiqTask("prostate", 1, 6, "MR", ("MR",), "prostate, task 1", False, "resize"),
    "prostate-2": QubiqTask("prostate", 2, 6, "MR", ("MR",), "prostate, task 2", False, "resize"),
    "pancreas": QubiqTask("pancreas", 1, 2, "CT", ("CT",), "pancreas", True, "crop"),
    "pancreatic-lesion": QubiqTask("pancreatic-lesion", 1, 2, "CT", ("CT",), "pancreatic lesion", True, "resize"),
}

_DATASETS = {task.dataset for task in TASKS.values()}
_ORIGINS = (("train", "Training"), ("valid", "Validation"), ("test", "Testing"))
_ORIGIN = re.compile(r"(train|valid|test)(ing|ation)?([_-]data.*)?", re.IGNORECASE)
_CASE = re.compile(r"case[_ ]?(\d+)(?:[-_](\d+))?", re.IGNORECASE)
_IMAGE = re.compile(r"(?:case[\d-]+_)?image\.nii(?:\.gz)?", re.IGNORECASE)
_MASK = re.compile(r"(?:case[\d-]+_)?(?:task_?(\d+)_)?seg_?(\d+)\.nii(?:\.gz)?", re.IGNORECASE)


class QubiqCase(NamedTuple):
    """One case of a task: its files, none of them opened."""

    name: str  # "training-case001", "training-case001-02": sorts by number, differs between training and validation
    patient: str
    origin: str  # "Training", "Validation", "Testing", or "" where no folder says
    folder: str
    label: str  # the folder below ROOT, for people
    image: str | None  # file name
    masks: dict[int, str]  # rater 1, 2, ... -> file name
    problems: tuple[tuple[str, str], ...]  # (reason, sentence) on files that are not used


def find_cases(root: str | os.PathLike[str], name: str) -> list[QubiqCase]:
    """The cases of task ``name`` below (or at) ``root``, by their names.

    The number of ``caseN`` is a patient's. Numbers go on from Training to Validation in the released trees; where one
    occurs in both, these are two patients. ``caseN-M`` is scan M of patient N wherever it lies: all of a patient's
    scans stay on one side of a split.

    Raises:
        InputError: no such task or folder; no case; cases of one origin in several folders (two releases).
    """
    if name not in TASKS:
        raise InputError(f"task {name!r} found, one of {', '.join(TASKS)} expected; correct --task.")
    task, top = TASKS[name], Path(root)
    if not top.is_dir():
        raise InputError(f"{top} is not a folder, the folder with QUBIQ's data expected; correct the path.")
    folders: dict[str | None, list[Path]] = {}
    for folder in _case_folders(top):
        folders.setdefault(_dataset_of(folder), []).append(folder)
    # a task's folder may have been renamed: then it is the one that is given
    found = folders.get(task.dataset) or folders.get(None)
    if not found:
        others = ", ".join(sorted(str(key) for key in folders))
        what = f"cases of {others} only" if others else "no folder of a case (case01, case1-1)"
        raise InputError(
            f"{top} holds {what}, cases of {task.dataset} expected; give the folder where QUBIQ's "
            "training_data... and validation_data... were unpacked."
        )
    parents: dict[str, set[Path]] = {}
    for folder in found:
        parents.setdefault(_origin_of(folder), set()).add(folder.parent)
    for origin, several in parents.items():
        if len(several) > 1:
            first, second = sorted(several)[:2]
            raise InputError(
                f"{origin or 'cases'} of {task.dataset} found in {first} and in {second}, one release expected; "
                "give the folder of one of them, or move the other one away."
            )
    cases = sorted((_case(folder, top.resolve(), task) for folder in found), key=lambda case: case.name)
    for one, two in pairwise(cases):
        if one.name == two.name:
            raise InputError(f"{one.folder} and {two.folder} have the same number, one case expected; remove one.")
    return cases


def _case_folders(top: Path) -> Iterator[Path]:
    seen: set[str] = set()  # links are followed, so they may lead back
    for folder, below, _ in os.walk(top.resolve(), followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        if _CASE.fullmatch(os.path.basename(folder)):
            below.clear()
            yield Path(folder)
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "__MACOSX")


def _dataset_of(folder: Path) -> str | None:
    for part in reversed(folder.parent.parts):
        name = re.sub(r"[_ ]", "-", part.lower())
        if name in _DATASETS:
            return name
    return None


def _origin_of(folder: Path) -> str:
    for part in reversed(folder.parent.parts):
        match = _ORIGIN.fullmatch(part)
        if match:
            return dict(_ORIGINS)[match[1].lower()]
    return ""


def _case(folder: Path, top: Path, task: QubiqTask) -> QubiqCase:
    match = _CASE.fullmatch(folder.name)
    assert match is not None
    origin = _origin_of(folder)
    number = f"case{int(match[1]):03d}"
    own = f"{origin.lower()}-{number}" if origin else number
    files = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    images = [file for file in files if _IMAGE.fullmatch(file)]
    masks: dict[int, str] = {}
    problems: list[tuple[str, str]] = []
    if len(images) > 1:
        problems.append(("second image of a case", f"{folder} has {' and '.join(images)}; {images[0]} is taken."))
    matches = [(file, found) for file in files if (found := _MASK.fullmatch(file))]
    # a file that names its task goes before one that does not
    for file, found in sorted(matches, key=lambda pair: (pair[1][1] is None, pair[0])):
        rater = int(found[2])
        if int(found[1] or 1) != task.number:
            continue
        if not 1 <= rater <= task.raters:
            problems.append(
                ("mask of a rater beyond the task's", f"{folder / file}: raters 1 to {task.raters} expected.")
            )
        elif rater in masks:
            problems.append(("second mask of a rater", f"{folder} has {masks[rater]} and {file}; the first is taken."))
        else:
            masks[rater] = file
    return QubiqCase(
        name=own if match[2] is None else f"{own}-{int(match[2]):02d}",
        patient=own if match[2] is None else number,
        origin=origin,
        folder=str(folder),
        label=folder.relative_to(top).as_posix() if folder != top else folder.name,
        image=images[0] if images else None,
        masks=masks,
        problems=tuple(problems),
    )
