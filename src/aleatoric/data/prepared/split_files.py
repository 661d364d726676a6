"""Somebody else's split, from a file: who is for testing, and the others' folds."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from .splits import TEST, TRAIN, GivenSplit

__all__ = ["SECTION_FOLDS", "fold_count", "read_split"]

#: name of a section -> fold
SECTION_FOLDS = {"testing": TEST, "test": TEST, "training": TRAIN, "train": TRAIN, "validation": "0", "val": "0"}


def read_split(file: str | os.PathLike[str], patients: Iterable[str]) -> GivenSplit:
    """The split that a file gives to these patients.

    Args:
        file: CSV with the columns ``patient`` and ``fold`` (a prepared set's cases.csv will do), or JSON:
            ``{patient: fold}`` or ``{fold: [patients]}``. A fold is a number or the name of a section.
        patients: those that need a fold; the file may name others.

    Raises:
        InputError: a file that is none of these, or that leaves out a patient or gives it two folds.
    """
    path = Path(file)
    fold_of = _folds_in(path)
    wanted = sorted(set(patients))
    lost = [patient for patient in wanted if patient not in fold_of]
    if lost:
        raise InputError(f"{path} says nothing of {len(lost)} patients, for example {lost[0]}; add them.")
    chosen = {patient: fold_of[patient] for patient in wanted}
    return GivenSplit(chosen, fold_count(chosen), path.name)


def fold_count(fold_of: Mapping[str, str]) -> int:
    """Cross-validation folds among these."""
    return max([int(fold) for fold in fold_of.values() if fold.isdigit()], default=0) + 1


def _folds_in(path: Path) -> dict[str, str]:
    pairs: list[tuple[str, Any]] = []
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if path.suffix.lower() == ".csv":
            pairs = [(row["patient"], row["fold"]) for row in csv.DictReader(io.StringIO(text, newline=""))]
        else:
            for key, value in json.loads(text).items():
                pairs += [(patient, key) for patient in value] if isinstance(value, list) else [(key, value)]
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}), a split expected; correct the path."
        ) from error
    except (ValueError, KeyError, AttributeError, RecursionError, csv.Error) as error:
        raise InputError(
            f"{path} is no split ({type(error).__name__}: {error}), patients and their folds expected: a CSV with the "
            "columns patient and fold, or a JSON object; correct it."
        ) from error
    fold_of: dict[str, str] = {}
    for patient, value in pairs:
        fold = SECTION_FOLDS.get(str(value).lower(), str(value))
        if fold not in (TEST, TRAIN) and not (fold.isascii() and fold.isdigit() and len(fold) < 4):
            raise InputError(f"{path}: fold {fold!r} of patient {patient} found, test, train or a number expected.")
        fold = str(int(fold)) if fold.isdigit() else fold
        if fold_of.setdefault(str(patient), fold) != fold:
            raise InputError(f"{path}: patient {patient} is in two folds, one expected; correct it.")
    return fold_of
