"""Reading one entry of a datalist: its image and its raters' masks, and what could not be used of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ...errors import InputError
from ..readers.scans import Scan, read_label, read_scan
from .entries import Entry

__all__ = ["LoadedCase", "load_case", "usable"]

_UNUSABLE = "label file that cannot be used"
_MOST_CLASSES = 20  # of a higher value nobody is advised to count the classes up to it


class LoadedCase(NamedTuple):
    """An image and its raters' masks.

    Attributes:
        scan: the image, (C, *S).
        labels: (R, *S) uint8, zeros where a rater is missing.
        valid: (R,) bool, False where a rater is missing.
        problems: (reason, sentence) of every mask that is named in the list and could not be used.
        names: of each rater, value -> name, where the label file says so.
        notes: what was done to the masks on reading, in sentences.
    """

    scan: Scan
    labels: np.ndarray
    valid: np.ndarray
    problems: list[tuple[str, str]]
    names: list[dict[int, str]]
    notes: list[str]


def load_case(entry: Entry) -> LoadedCase:
    """Read image and masks; a mask that cannot be read is a problem of that rater, not of the case.

    Raises:
        InputError: the image cannot be read or has a NaN; no mask could be read.
    """
    try:
        scan = read_scan(entry.image[0] if len(entry.image) == 1 else list(entry.image))
    except InputError as error:
        raise InputError(f"{entry.where}: {error}") from error
    if scan.array.dtype.kind == "f" and not np.isfinite(scan.array).all():
        bad = int(np.count_nonzero(~np.isfinite(scan.array)))
        raise InputError(
            f"{entry.where}: {bad} pixels that are NaN or infinite found in {entry.image[0]}, finite values expected; "
            "repair the image or remove the entry."
        )
    labels = np.zeros((len(entry.labels), *scan.array.shape[1:]), np.uint8)
    valid = np.zeros(len(entry.labels), bool)
    problems: list[tuple[str, str]] = []
    names: list[dict[int, str]] = [{} for _ in entry.labels]
    notes: list[str] = []
    for rater, path in enumerate(entry.labels):
        if path is None:
            continue
        if not os.path.exists(path):
            problems.append(("label file that is missing", f"{entry.where}: there is no label {path}"))
            continue
        try:
            found = read_label(path, scan)
        except InputError as error:
            problems.append((_UNUSABLE, f"{entry.where}: {error}"))
            continue
        labels[rater], valid[rater] = found.array, True
        names[rater] = dict(found.names)
        notes += found.notes
    if not valid.any():
        raise InputError(f"{entry.where} ({entry.case}): no label left; the first: {problems[0][1]}")
    return LoadedCase(scan, labels, valid, problems, names, notes)


def usable(case: LoadedCase, entry: Entry, classes: Sequence[str], by_name: bool = False) -> LoadedCase:
    """The case without the masks that have a value beyond the classes, or whose file gives a value another class's
    name: nothing later could tell either from a sound mask. Each is a problem of its rater, not of the case.

    Args:
        by_name: the classes' names came from a label file, so that another name for a value means another class.

    Raises:
        InputError: no mask is left.
    """
    wrong = {
        rater: f"{entry.where}: {sentence}"
        for rater, path in enumerate(entry.labels)
        if path is not None
        and case.valid[rater]
        and (sentence := _contradiction(path, case.labels[rater], case.names[rater], classes, by_name))
    }
    if not wrong:
        return case
    labels, valid = case.labels.copy(), case.valid.copy()
    labels[list(wrong)], valid[list(wrong)] = 0, False
    problems = [*case.problems, *((_UNUSABLE, sentence) for sentence in wrong.values())]
    if not valid.any():
        raise InputError(f"{entry.where} ({entry.case}): no label left; the first: {problems[0][1]}")
    return case._replace(labels=labels, valid=valid, problems=problems)


def _contradiction(
    path: str, mask: np.ndarray, names: Mapping[int, str], classes: Sequence[str], by_name: bool
) -> str | None:
    """What of a mask contradicts the classes, and the way out."""
    highest = int(mask.max())
    if highest >= len(classes):
        found = f"label value {highest} found in {path}, 0..{len(classes) - 1} expected ({', '.join(classes)})"
        if highest > _MOST_CLASSES:
            return (
                f"{found}; it looks like a picture of grey values or colours, not of class numbers: export the mask "
                "itself, or name the classes if there are so many."
            )
        return f"{found}; give --classes {highest + 1}, or their names, or correct the file."
    value_of = {name.casefold(): value for value, name in enumerate(classes)}
    for value, name in names.items():
        other = value_of.get(name.casefold(), value)
        if other != value:
            return (
                f"{path} calls value {value} {name!r}, which is value {other} of {', '.join(classes)}; renumber it, or "
                "rename it."
            )
        if by_name and 0 < value < len(classes) and name.casefold() != classes[value].casefold():
            return (
                f"{path} calls value {value} {name!r}, {classes[value]!r} as in the first file expected; renumber it, "
                "or give --classes if both mean the same."
            )
    return None
