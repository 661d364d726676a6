"""The spread of a figure over trainings of one model: folds and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError

__all__ = ["Spread", "across_runs"]


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
    folds: dict[object, list[np.ndarray]] = {}
    for (fold, _), value in zip(values, every):
        folds.setdefault(fold, []).append(value)
    means = [np.mean(group, axis=0) for group in folds.values()]
    several = [np.stack(group) for group in folds.values() if len(group) > 1]
    within = sum((len(group) - 1) * group.var(axis=0, ddof=1) for group in several)
    freedom = sum(len(group) - 1 for group in several)
    return Spread(
        every.mean(axis=0),
        every.std(axis=0, ddof=1) if len(every) > 1 else undefined,
        np.std(means, axis=0, ddof=1) if len(means) > 1 else undefined,
        np.sqrt(within / freedom) if freedom else undefined,
        len(every),
        len(folds),
        len({seed for _, seed in values}),
    )
