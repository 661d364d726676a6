"""Split by patient, always: patches of one patient never lie on two sides.

A patient's fold is ``"test"``, ``"0"`` .. ``"folds - 1"`` (validation in that fold, training in the others) or
``"train"`` (training in every fold).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from ...errors import InputError

__all__ = [
    "DEFAULT_SPLIT",
    "TEST",
    "TRAIN",
    "FirstSplit",
    "GivenSplit",
    "RandomSplit",
    "Split",
    "assign_folds",
    "split_hash",
]

TEST = "test"
TRAIN = "train"


class Split(Protocol):
    """A rule that deals patients to folds."""

    @property
    def folds(self) -> int:
        """Number of cross-validation folds."""
        ...

    @property
    def by(self) -> str:
        """Column of cases.csv whose values are dealt: ``"patient"``, or a coarser one whose patients stay together."""
        ...

    def assign(self, names: Iterable[str]) -> dict[str, str]:
        """Fold of each name; repetitions count once, the order does not matter."""
        ...

    def describe(self) -> dict[str, Any]:
        """What dataset.json says of the rule; for JSON."""
        ...


@dataclass(frozen=True)
class RandomSplit:
    """:func:`assign_folds` of the values of one column."""

    seed: int = 0
    test_fraction: float = 0.2
    folds: int = 3
    by: str = "patient"

    def __post_init__(self) -> None:
        _check(self.test_fraction, self.folds)
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed {self.seed} found, 0 to {2**32 - 1} expected; choose another --seed.")

    def assign(self, names: Iterable[str]) -> dict[str, str]:
        return assign_folds(names, self.test_fraction, self.folds, self.seed)

    def describe(self) -> dict[str, Any]:
        return {"rule": "random", **asdict(self)}


@dataclass(frozen=True)
class FirstSplit:
    """The first patients in sorted order are for testing, the rest is dealt in turn (cSAE, appendix B)."""

    test_fraction: float = 0.2
    folds: int = 3
    by: str = "patient"

    def __post_init__(self) -> None:
        _check(self.test_fraction, self.folds)

    def assign(self, names: Iterable[str]) -> dict[str, str]:
        return _deal(sorted(set(names)), self.test_fraction, self.folds)

    def describe(self) -> dict[str, Any]:
        return {"rule": "first", **asdict(self)}


@dataclass(frozen=True)
class GivenSplit:
    """Somebody else's split: a challenge's, a release's, a user's file.

    Attributes:
        fold_of: patient -> ``"test"``, ``"train"`` or the number of a fold.
        folds: number of cross-validation folds.
        origin: whose split it is, in words.
    """

    fold_of: Mapping[str, str]
    folds: int
    origin: str
    by: str = "patient"

    def __post_init__(self) -> None:
        _check(0.0, self.folds)
        known = {TEST, TRAIN, *map(str, range(self.folds))}
        for name, fold in self.fold_of.items():
            if fold not in known:
                raise InputError(
                    f"fold {fold!r} found for {self.by} {name} in {self.origin}, {TEST}, {TRAIN} or 0 to "
                    f"{self.folds - 1} expected; correct it."
                )

    def assign(self, names: Iterable[str]) -> dict[str, str]:
        chosen = sorted(set(names))
        lost = [name for name in chosen if name not in self.fold_of]
        if lost:
            raise InputError(
                f"{len(lost)} {self.by}s without a fold found in {self.origin}, for example {lost[0]}, one for each "
                "expected; complete it."
            )
        return {name: self.fold_of[name] for name in chosen}

    def describe(self) -> dict[str, Any]:
        # not fold_of itself: cases.csv has it, and split_hash vouches for it
        return {"rule": "given", "origin": self.origin, "folds": self.folds, "by": self.by}


def assign_folds(patients: Iterable[str], test_fraction: float = 0.2, folds: int = 3, seed: int = 0) -> dict[str, str]:
    """Deal patients to ``"test"`` or to one of the folds ``"0"`` .. ``"folds - 1"``.

    ``round(test_fraction * P)`` of the P patients are test patients (at least one when there are two patients or
    more and the fraction is positive, never all of them), the rest are dealt in turn, so that two folds never
    differ by more than one patient. The order in which patients are given does not matter.

    Args:
        patients: patient names; repetitions count once.
        test_fraction: 0 <= fraction < 1.
        folds: number of cross-validation folds, at least 1.
        seed: of the shuffle (numpy's legacy generator, whose stream is frozen across versions).

    Example:
        >>> assign_folds("abcdef", test_fraction=0.2, folds=2, seed=0)
        {'f': 'test', 'c': '0', 'b': '1', 'd': '0', 'a': '1', 'e': '0'}
    """
    names = sorted(set(patients))
    return _deal([names[i] for i in np.random.RandomState(seed).permutation(len(names))], test_fraction, folds)


def split_hash(fold_of: Mapping[str, str]) -> str:
    """SHA-256 of the lines ``patient <tab> fold`` in the order of the patients' names: equal splits, equal hash."""
    lines = "".join(f"{patient}\t{fold_of[patient]}\n" for patient in sorted(fold_of))
    return hashlib.sha256(lines.encode()).hexdigest()


def _deal(names: list[str], test_fraction: float, folds: int) -> dict[str, str]:
    tests = round(test_fraction * len(names))
    if test_fraction > 0 and len(names) >= 2:
        tests = min(max(tests, 1), len(names) - 1)
    elif len(names) < 2:
        tests = 0
    assigned = dict.fromkeys(names[:tests], TEST)
    assigned.update((name, str(i % folds)) for i, name in enumerate(names[tests:]))
    return assigned


def _check(test_fraction: float, folds: int) -> None:
    if not 0 <= test_fraction < 1:
        raise InputError(f"test fraction {test_fraction} found, 0 <= fraction < 1 expected; correct it.")
    if folds < 1:
        raise InputError(f"{folds} folds found, at least 1 expected; correct the number.")


DEFAULT_SPLIT = RandomSplit()
