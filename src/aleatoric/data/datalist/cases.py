"""Reading one entry of a datalist: its image and its raters' masks, and what could not be used of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...errors import InputError
from ..readers.scans import Scan, read_label, read_scan
from .entries import Entry

__all__ = ["LoadedCase", "check_classes", "load_case"]


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
            problems.append(("label file that cannot be used", f"{entry.where}: {error}"))
            continue
        labels[rater], valid[rater] = found.array, True
        names[rater] = dict(found.names)
        notes += found.notes
    if not valid.any():
        raise InputError(f"{entry.where} ({entry.case}): no label left; the first: {problems[0][1]}")
    return LoadedCase(scan, labels, valid, problems, names, notes)


def check_classes(case: LoadedCase, entry: Entry, classes: Sequence[str], by_name: bool = False) -> None:
    """Refuse a label value beyond the classes, or one that its file gives another class's name: nothing later could
    tell either from a sound mask.

    Args:
        by_name: the classes' names came from a label file, so that another name for a value means another class.

    Raises:
        InputError: names file, value and the way out.
    """
    value_of = {name.casefold(): value for value, name in enumerate(classes)}
    for path, mask, names in zip(entry.labels, case.labels, case.names):
        highest = int(mask.max())
        if highest >= len(classes):
            raise InputError(
                f"{entry.where}: label value {highest} found in {path}, 0..{len(classes) - 1} expected "
                f"({', '.join(classes)}); give --classes {highest + 1}, or their names, or correct the file."
            )
        for value, name in names.items():
            other = value_of.get(name.casefold(), value)
            if other != value:
                raise InputError(
                    f"{entry.where}: {path} calls value {value} {name!r}, which is value {other} of "
                    f"{', '.join(classes)}; renumber it, or rename it."
                )
            if by_name and 0 < value < len(classes) and name.casefold() != classes[value].casefold():
                raise InputError(
                    f"{entry.where}: {path} calls value {value} {name!r}, {classes[value]!r} as in the first file "
                    "expected; renumber it, or give --classes if both mean the same."
                )
