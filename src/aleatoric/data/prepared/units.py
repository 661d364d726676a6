"""The stored units of a preparation that is under way, and what they add up to."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ...errors import InputError
from .format import CASE_COLUMNS

__all__ = ["Summary", "open_unit", "read_meta"]

_LISTED = 100  # sentences on what went wrong that dataset.json keeps; all are counted


class Summary:
    """What must be known of all units before the first byte is written."""

    def __init__(self, report: Mapping[str, Any], by: str) -> None:
        self.given = dict(report)
        self.by = by
        self.count = 0
        self.columns: dict[str, None] = {}  # a set that keeps its order
        self.group_of: dict[str, str] = {}  # patient -> what the split deals
        self.skipped = Counter(self.given.pop("skipped", {}))
        self.excluded = Counter(self.given.pop("excluded", {}))
        problems = self.given.pop("problems", [])
        self.notes: Counter[str] = Counter()
        self.problems, self.problem_count = list(problems[:_LISTED]), len(problems)

    @property
    def groups(self) -> set[str]:
        """What the split has to deal."""
        return set(self.group_of.values())

    def add(self, meta: Mapping[str, Any]) -> None:
        """Take in one unit. Raises InputError where the split could put one patient on two sides."""
        for row in meta["cases"]:
            self.columns.update((key, None) for key in row if key not in CASE_COLUMNS)
            patient = row["patient"]
            group = row.get(self.by)
            if not group:
                raise InputError(f"case {row['case']} names no {self.by}, one expected to split by; add it.")
            if self.group_of.setdefault(patient, group) != group:
                raise InputError(
                    f"patient {patient} found with {self.by} {self.group_of[patient]} and {group}, one expected, or "
                    "the patient would lie on two sides of the split; correct it or split by patient."
                )
        self.count += len(meta["cases"])
        self.skipped.update(meta["skipped"])
        self.excluded.update(meta["excluded"])
        for note in dict.fromkeys(meta["notes"]):
            if note in self.notes or len(self.notes) < _LISTED:
                self.notes[note] += 1
        self.problem_count += len(meta["problems"])
        self.problems += meta["problems"][: _LISTED - len(self.problems)]

    def fold_of_patient(self, fold_of_group: Mapping[str, str]) -> dict[str, str]:
        """Fold of each patient, from the fold of each group."""
        return {patient: fold_of_group[group] for patient, group in self.group_of.items()}

    def why_none(self) -> str:
        """Why there is no patch at all, in words."""
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted((self.skipped + self.excluded).items()))
        first = f"; the first: {self.problems[0].rstrip('.')}" if self.problems else ""
        return (reasons or "nothing was read") + first

    def report(self) -> dict[str, Any]:
        """What dataset.json keeps under ``report``."""
        notes = [*self.given.get("notes", []), *(f"{note} ({n} x)" for note, n in sorted(self.notes.items()))]
        return {
            **self.given,
            **({"notes": notes} if notes else {}),
            "skipped": dict(sorted(self.skipped.items())),
            "excluded": dict(sorted(self.excluded.items())),
            "problem_count": self.problem_count,
            "problems": self.problems,
        }


def read_meta(path: Path) -> dict[str, Any]:
    """Rows and report of a stored unit, without its pixels."""
    with open_unit(path) as arrays:
        return dict(json.loads(str(arrays["meta"])))


@contextlib.contextmanager
def open_unit(path: Path) -> Iterator[Any]:
    """A stored unit's arrays, each read when it is asked for. Raises InputError where the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (BadZipFile, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it and repeat the command.") from error
