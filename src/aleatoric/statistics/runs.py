"""The spread of a figure over trainings of one model: folds and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from ..errors import InputError

__all__ = ["Spread", "across_runs", "difference_over_trainings", "same_folds"]


class Spread(NamedTuple):
    """A figure over folds and seeds; each field () or (F,), NaN where there is too little to tell."""

    mean: np.ndarray  # of all runs
    deviation: np.ndarray  # standard deviation of all runs, n - 1 in its divisor
    between_folds: np.ndarray  # standard deviation of the folds' means over their seeds
    between_seeds: np.ndarray  # standard deviation of the seeds of one fold, pooled over the folds
    runs: int
    folds: int
    seeds: int


def across_runs(values: Mapping[tuple[object, object], ArrayLike]) -> Spread:
    """Mean and standard deviations of a figure over several trainings of one model.

    ``deviation`` is that of all runs, folds and seeds together: what another training on another fold may give.
    ``between_seeds`` is what chance alone gives, with the same data: a smaller difference between two models needs no
    explanation.

    Args:
        values: (fold, seed) -> () or (F,). A figure that a run lacks (NaN) has no mean.

    Raises:
        InputError: no run.
    """
    if not values:
        raise InputError("there is no run to average, expected at least one: train and evaluate a fold first.")
    every = np.stack([np.asarray(value, dtype=np.float64) for value in values.values()])
    undefined = np.full(every.shape[1:], np.nan)
    folds = _folds(values)
    means = [group.mean(axis=0) for group in folds.values()]
    within, freedom = _within(folds.values())
    return Spread(
        every.mean(axis=0),
        every.std(axis=0, ddof=1) if len(every) > 1 else undefined,
        np.std(means, axis=0, ddof=1) if len(means) > 1 else undefined,
        np.sqrt(within / freedom) if freedom else undefined,
        len(every),
        len(folds),
        len({seed for _, seed in values}),
    )


def difference_over_trainings(
    first: Mapping[tuple[object, object], ArrayLike],
    second: Mapping[tuple[object, object], ArrayLike],
    level: float = 0.95,
) -> np.ndarray:
    """Half of the interval of the difference of two models' means, over other trainings of both on the same data.

    With several seeds of a fold Student's interval from the variance between seeds, pooled over folds and models. With
    one seed, but several folds that both have, that of the folds' differences, in which there is besides that a model
    may suit one fold better than another. Of one training each nothing is known, and of few the interval is wide: of
    three folds with a seed each 2.5 standard deviations of their differences. Nor is anything known of models that were
    trained on other folds, or on some folds more often than on others: a fold's own ease is in their difference.

    Args:
        first, second: (fold, seed) -> () or (F,) of a training.
        level: the share of such intervals that contain the difference of endlessly many trainings.

    Returns:
        () or (F,); NaN where it cannot be told.
    """
    sides = [_folds(first), _folds(second)]
    if not same_folds(first, second):
        return np.asarray(np.nan)
    within, freedom = _within([group for side in sides for group in side.values()])
    if freedom:
        size = np.sqrt(within / freedom * (1 / len(first) + 1 / len(second)))
        return np.asarray(student.isf((1 - level) / 2, freedom) * size)
    number = len(sides[0])
    if number < 2:
        return np.asarray(np.nan)
    differences = np.stack([sides[0][fold].mean(0) - sides[1][fold].mean(0) for fold in sides[0]])
    size = differences.std(axis=0, ddof=1) / np.sqrt(number)
    return np.asarray(student.isf((1 - level) / 2, number - 1) * size)


def same_folds(first: Iterable[tuple[object, object]], second: Iterable[tuple[object, object]]) -> bool:
    """Whether the (fold, seed) of two models are of the same folds, each with the same share of the seeds."""
    shares = []
    for runs in (list(first), list(second)):
        counts = Counter(fold for fold, _ in runs)
        shares.append({fold: Fraction(count, len(runs)) for fold, count in counts.items()})
    return shares[0] == shares[1] != {}


def _folds(values: Mapping[tuple[object, object], ArrayLike]) -> dict[object, np.ndarray]:
    """Fold -> (seeds[, F])."""
    folds: dict[object, list[np.ndarray]] = {}
    for (fold, _), value in values.items():
        folds.setdefault(fold, []).append(np.asarray(value, dtype=np.float64))
    return {fold: np.stack(group) for fold, group in folds.items()}


def _within(groups: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """Sum of squares within groups (n[, F]), and its degrees of freedom."""
    several = [group for group in groups if len(group) > 1]
    squares = [(len(group) - 1) * group.var(axis=0, ddof=1) for group in several]
    return np.asarray(sum(squares)), sum(len(group) - 1 for group in several)
