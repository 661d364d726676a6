"""Wilcoxon's signed-rank test on patients, and Holm's correction for several tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata, wilcoxon

from .bootstrap import paired_difference, patient_means

__all__ = ["holm", "paired_wilcoxon", "signed_ranks"]

_EXACT = 50  # patients up to which Wilcoxon's distribution is counted out, as scipy does without ties
_EQUAL = 1e-5  # of the largest value: what is closer is equal, for figures are float32 and per_case.csv has six digits


def paired_wilcoxon(first: ArrayLike, second: ArrayLike, patients: Sequence[object] | np.ndarray) -> np.ndarray:
    """Two-sided p-value of Wilcoxon's signed-rank test on the patients' mean differences.

    Patients are the pairs, each with one vote, however many cases. Patients without any difference are left out, as
    Wilcoxon (Biometrics Bulletin 1, 1945) did; with nothing else p is 1. Equal differences share their mean rank; those
    that only rounding tells apart are equal. Exact up to 50 patients, beyond that from the Normal distribution with its
    correction for ties (scipy).

    Args:
        first: (n,) or (n, F) of one model; NaN where undefined.
        second: of the other, on the same cases.
        patients: (n,) whose case it is.

    Returns:
        () or (F,); NaN where no case has both values.

    Raises:
        InputError: shapes that do not fit, no case.
    """
    return signed_ranks(first, second, patients)[0]


def signed_ranks(
    first: ArrayLike, second: ArrayLike, patients: Sequence[object] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each figure () or (F,): p; which way the ranks point, 1, -1 or 0; how many patients have a difference."""
    means = patient_means(paired_difference(first, second, patients), patients)  # (P[, F])
    close = np.atleast_1d(_EQUAL * np.abs(np.nan_to_num([first, second])).max(axis=(0, 1)))
    columns = means.reshape(len(means), -1).T
    p, way = np.array([_signed_rank(_merged(c[~np.isnan(c)], near)) for c, near in zip(columns, close, strict=True)]).T
    shape = means.shape[1:]
    return p.reshape(shape), way.reshape(shape), np.count_nonzero(~np.isnan(means), axis=0)


def _merged(differences: np.ndarray, close: float) -> np.ndarray:
    """The differences with the smallest size of each group whose sizes follow each other closely; 0 is such a size."""
    size = np.concatenate([[0.0], np.abs(differences)])
    order = np.argsort(size, kind="stable")
    starts = np.concatenate([[True], np.diff(size[order]) > close])
    merged = np.empty_like(size)
    merged[order] = size[order][starts][np.cumsum(starts) - 1]
    return np.sign(differences) * merged[1:]


def _signed_rank(differences: np.ndarray) -> tuple[float, float]:
    """p, and the sign of the sum of the signed ranks."""
    if not len(differences):
        return float("nan"), 0.0
    differences = differences[differences != 0]
    size = np.abs(differences)
    if not len(differences):
        return 1.0, 0.0
    way = float(np.sign((np.sign(differences) * rankdata(size)).sum()))
    if len(differences) > _EXACT or len(np.unique(size)) == len(size):
        return float(wilcoxon(differences).pvalue), way
    # Ties, for which scipy permutes (a second a test) or takes the Normal distribution: the law of the sum of positive
    # ranks, each of which is there or not with even chances, rank by rank. Doubled, mean ranks are whole numbers.
    ranks = np.rint(2 * rankdata(size)).astype(int)
    law = np.ones(1)
    for rank in ranks:
        law = (np.pad(law, (0, rank)) + np.pad(law, (rank, 0))) / 2
    positive = ranks[differences > 0].sum()
    return float(min(1.0, 2 * min(law[: positive + 1].sum(), law[positive:].sum()))), way


def holm(p_values: ArrayLike) -> np.ndarray:
    """P-values adjusted for the number of tests (Holm, Scandinavian Journal of Statistics 6, 1979).

    Args:
        p_values: (tests, ...); every other axis is a family of its own. NaN is no test.

    Returns:
        The same shape: the k-th smallest of m times m - k + 1, no smaller than one before it, at most 1.
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, axis=0)  # NaN last
    rank = np.arange(len(given)).reshape(-1, *[1] * (given.ndim - 1))
    factor = np.maximum(np.count_nonzero(~np.isnan(given), axis=0) - rank, 1)
    stepped = np.maximum.accumulate(np.take_along_axis(given, order, 0) * factor, axis=0).clip(max=1)
    adjusted = np.empty_like(given)
    np.put_along_axis(adjusted, order, stepped, 0)
    return adjusted
