"""Split by patient, always, from a seed: patches of one patient never lie on two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

__all__ = ["TEST", "assign_folds", "split_hash"]

TEST = "test"


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
    shuffled = [names[i] for i in np.random.RandomState(seed).permutation(len(names))]
    tests = round(test_fraction * len(names))
    if test_fraction > 0 and len(names) >= 2:
        tests = min(max(tests, 1), len(names) - 1)
    elif len(names) < 2:
        tests = 0
    assigned = dict.fromkeys(shuffled[:tests], TEST)
    assigned.update((patient, str(i % folds)) for i, patient in enumerate(shuffled[tests:]))
    return assigned


def split_hash(fold_of: Mapping[str, str]) -> str:
    """SHA-256 of the lines ``patient <tab> fold`` in the order of the patients' names: equal splits, equal hash."""
    lines = "".join(f"{patient}\t{fold_of[patient]}\n" for patient in sorted(fold_of))
    return hashlib.sha256(lines.encode()).hexdigest()
