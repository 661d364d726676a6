"""Whether two models differ: paired tests on the same patients, corrected for their number, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from .bootstrap import few_patients, paired_bootstrap, paired_difference
from .ranks import holm, signed_ranks
from .runs import difference_over_trainings

__all__ = ["Comparison", "Verdict", "compare_models", "inside_noise"]

_ALPHA = 0.05


class Verdict(NamedTuple):
    """Whether a difference is inside the noise, and why, in a sentence."""

    inside: bool
    sentence: str


def inside_noise(
    difference: float,
    low: float,
    high: float,
    p: float,
    trainings: float = float("nan"),
    *,
    way: float = 0.0,
    patients: int | None = None,
    tests: int = 2,
    level: float = 0.95,
) -> Verdict:
    """Whether a difference between two models cannot be told from noise.

    It is inside where its paired interval over patients contains 0, where p, adjusted for the number of tests, is above
    .05, where the test points the other way (patients with many cases weigh more in the difference, and all alike in
    the test), or where trainings differ as much. Two models that were trained once each differ by the luck of their
    trainings too, which no interval over patients contains: where that is not known, the sentence says so.

    Args:
        difference: of the two models' means.
        low, high: its interval, :func:`~aleatoric.statistics.paired_bootstrap`; NaN: too few patients for one.
        p: Wilcoxon's, adjusted with :func:`holm`.
        trainings: half of the interval over trainings, :func:`~aleatoric.statistics.difference_over_trainings`; NaN:
            not known.
        way: the sign of the test's sum of ranks; 0: not known, or neither.
        patients: with a value of both models, for the sentence.
        tests: that p is adjusted for, for the sentence.
        level: of the intervals.
    """
    if np.isnan(difference):
        return Verdict(True, "no difference can be told: no case has a value of both models.")
    reasons = _reasons(difference, low, high, p, trainings, way)
    interval = f"its {100 * level:g} % interval over patients [{low:.3g}, {high:.3g}]"
    counted = "too few patients" if patients is None else f"{patients} patient{'s' * (patients != 1)}"
    over_trainings = f"{100 * level:g} % interval of the difference over trainings ± {trainings:.3g}"
    said = [
        f"{interval} contains 0" if not np.isnan(low) else f"there is no interval over {counted}",
        (f"p is {p:.2g}" + " after Holm's correction" * (tests > 1)) if not np.isnan(p) else "there is no test",
        f"trainings differ as much ({over_trainings})",
        "the test, in which a patient with many cases counts no more than another, points the other way",
    ]
    if reasons.any():
        why = "; ".join(words for words, holds in zip(said, reasons) if holds)
        return Verdict(True, f"{difference:+.3g} is inside the noise: {why}.")
    others = "how much another training changes is not known"
    if not np.isnan(trainings):
        others = f"trainings differ less ({over_trainings})"
    return Verdict(False, f"{difference:+.3g}: {interval} leaves out 0, {said[1]}, {others}.")


def _reasons(
    difference: ArrayLike, low: ArrayLike, high: ArrayLike, p: ArrayLike, trainings: ArrayLike, way: ArrayLike
) -> np.ndarray:
    """(4, ...) bool: the interval contains 0, nothing is rejected, trainings differ as much, the test disagrees."""
    by_interval = ~((np.asarray(low) > 0) | (np.asarray(high) < 0))
    by_test = ~(np.asarray(p) <= _ALPHA)
    by_training = np.abs(difference) <= np.asarray(trainings)
    disagree = np.sign(difference) * np.asarray(way) < 0
    return np.stack(np.broadcast_arrays(by_interval, by_test, by_training, disagree))


@dataclass(frozen=True)
class Comparison:
    """Every model against every other on the same cases; matrices (M, M) or, of F figures, (M, M, F).

    Attributes:
        models: their names, in the order of rows and columns.
        difference: mean of the row's model minus that of the column's, over the cases where both have a value.
        low, high: its interval, patients resampled.
        p: of Wilcoxon's test on the patients' means.
        adjusted: p after Holm's correction for all pairs of models, each figure for itself.
        adjusted_figures: p after Holm's correction for all figures, each pair for itself.
        trainings: half of the difference's interval over trainings, NaN where not known.
        way: the sign of the test's sum of ranks.
        inside: True where the difference is inside the noise, :func:`inside_noise` with ``adjusted``.
        counted: patients with a value of both models.
        patients: how many in all.
        level: of the intervals.
        warnings: sentences.
    """

    models: tuple[str, ...]
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    adjusted: np.ndarray
    adjusted_figures: np.ndarray
    trainings: np.ndarray
    way: np.ndarray
    inside: np.ndarray
    counted: np.ndarray
    patients: int
    level: float
    warnings: tuple[str, ...]

    def verdict(self, first: str, second: str, figure: int | None = None) -> Verdict:
        """:func:`inside_noise` of ``first`` minus ``second``, of one figure where there are several."""
        place: tuple[int, ...] = (self.models.index(first), self.models.index(second))
        place += () if figure is None else (figure,)
        parts = (self.difference, self.low, self.high, self.adjusted, self.trainings)
        tests = len(self.models) * (len(self.models) - 1) // 2
        return inside_noise(
            *(float(part[place]) for part in parts),
            way=float(self.way[place]),
            patients=int(self.counted[place]),
            tests=tests,
            level=self.level,
        )


def compare_models(
    values: Mapping[str, ArrayLike],
    patients: Sequence[object] | np.ndarray,
    cases: Mapping[str, Sequence[object]] | None = None,
    trainings: Mapping[str, Mapping[tuple[object, object], ArrayLike]] | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Every pair of models on the same cases.

    Args:
        values: model -> (n,) a figure of each case, or (n, F) of F figures; NaN where undefined. Of a model that was
            trained several times, the mean of its runs, case by case.
        patients: (n,) whose case it is.
        cases: model -> (n,) names of its cases, so that a model that was scored on others is found.
        trainings: model -> (fold, seed) -> () or (F,) the figure of that training alone, as far as known.
        resamples, level, seed: of the intervals, :func:`~aleatoric.statistics.patient_bootstrap`.

    Raises:
        InputError: models that were not scored on the same cases, or not by as many figures; no model.
    """
    if not values:
        raise InputError("there is no model to compare, expected two or more.")
    models = tuple(values)
    arrays = {model: np.asarray(value, dtype=np.float64) for model, value in values.items()}
    _same_cases(arrays, cases)
    shape = (len(models), len(models), *arrays[models[0]].shape[1:])
    difference, low, high, way = (np.zeros(shape) for _ in range(4))
    p, adjusted, adjusted_figures = (np.ones(shape) for _ in range(3))
    spread, counted = np.full(shape, np.nan), np.zeros(shape, int)
    pairs = list(combinations(range(len(models)), 2))
    for i, j in pairs:
        one, two = arrays[models[i]], arrays[models[j]]
        defined = paired_difference(one, two, patients)
        shared = ~np.isnan(defined)
        with np.errstate(invalid="ignore"):
            difference[i, j] = np.where(shared, defined, 0).sum(0) / shared.sum(0)
        low[i, j], high[i, j] = paired_bootstrap(one, two, patients, resamples, level, seed)
        difference[j, i], low[j, i], high[j, i] = -difference[i, j], -high[i, j], -low[i, j]
        p[i, j], way[i, j], counted[i, j] = signed_ranks(one, two, patients)
        p[j, i], way[j, i], counted[j, i] = p[i, j], -way[i, j], counted[i, j]
        adjusted_figures[i, j] = adjusted_figures[j, i] = holm(np.atleast_1d(p[i, j])).reshape(shape[2:])
        if trainings is not None:
            of_one, of_two = (trainings.get(models[k], {}) for k in (i, j))
            spread[i, j] = spread[j, i] = difference_over_trainings(of_one, of_two, level)
    if pairs:
        rows, columns = np.array(pairs).T
        adjusted[rows, columns] = adjusted[columns, rows] = holm(p[rows, columns])
    return Comparison(
        models,
        difference,
        low,
        high,
        p,
        adjusted,
        adjusted_figures,
        spread,
        way,
        np.asarray(_reasons(difference, low, high, adjusted, spread, way).any(0)),
        counted,
        len(set(map(str, patients))),
        level,
        tuple(filter(None, [few_patients(patients, len(pairs), level)])),
    )


def _same_cases(arrays: Mapping[str, np.ndarray], cases: Mapping[str, Sequence[object]] | None) -> None:
    """Refuse what cannot be paired."""
    first, *others = arrays
    for other in others:
        if cases is not None and list(cases[first]) != list(cases[other]):
            apart = [one for one, two in zip(cases[first], cases[other]) if one != two]
            where = f"the first that differs is {apart[0]}" if apart else f"{len(cases[first])} and {len(cases[other])}"
            raise InputError(
                f"{first} and {other} were not scored on the same cases in one order ({where}); evaluate both on one "
                f"section of one data set."
            )
        if arrays[first].shape != arrays[other].shape:
            raise InputError(
                f"{first} and {other} have values of shapes {arrays[first].shape} and {arrays[other].shape}; evaluate "
                f"both on one section of one data set, by the same figures."
            )
