"""Models as a report compares them: the runs of each taken together, and whether their numbers may be compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..statistics import Comparison, Spread, across_runs, compare_models, patient_bootstrap
from .cautions import asked_alike
from .collect import Evaluation
from .figures import LOWER, NEITHER, figure

__all__ = ["Compared", "Model", "compare", "pool"]

_RESAMPLES, _LEVEL = 10_000, 0.95


@dataclass(frozen=True)
class Model:
    """One model: a single evaluation, or its folds and seeds.

    Attributes:
        name: unique in the report.
        runs: its evaluations.
        keys: names of all cases that any run has seen, in an order that all models share.
        patients: (n,) whose case each is.
        figures: name -> (n,) a value per case, the mean over the runs that saw it.
    """

    name: str
    runs: tuple[Evaluation, ...]
    keys: list[tuple[str, ...]]
    patients: np.ndarray
    figures: dict[str, np.ndarray]

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Means over the cases; what only a whole section has is the mean over the runs."""
        every = [run.metrics for run in self.runs]
        if len(every) == 1:
            return every[0]
        means = {}
        for name in dict.fromkeys(name for metrics in every for name in metrics):
            values = self.figures.get(name, np.array([metrics.get(name, math.nan) for metrics in every]))
            means[name] = float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
        return means

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """As the evaluation gave them; of several runs from the cases' means, patients resampled."""
        if len(self.runs) == 1:
            given = self.runs[0].record.get("intervals") or {}
            return {name: (float(pair[0]), float(pair[1])) for name, pair in given.items() if pair and None not in pair}
        if not self.figures:
            return {}
        columns = np.stack(list(self.figures.values()), axis=1)
        low, high = patient_bootstrap(columns, self.patients, _RESAMPLES, self.level)
        return {name: (float(low[i]), float(high[i])) for i, name in enumerate(self.figures)}

    @property
    def level(self) -> float:
        """Of the intervals."""
        return float((self.runs[0].record.get("bootstrap") or {}).get("level", _LEVEL))

    def definition(self, name: str) -> str:
        """What the figure is, as the evaluation says it."""
        return next((str(run.record["definitions"].get(name) or "") for run in self.runs if name in run.metrics), "")

    def trainings(self, names: Sequence[str]) -> dict[tuple[object, object], list[float]]:
        """(fold, seed) -> the figures of that run alone; nothing of a run that does not know its training."""
        known = [(run.record.get("training"), run.metrics) for run in self.runs]
        return {(t["fold"], t["seed"]): [m.get(name, math.nan) for name in names] for t, m in known if t}

    def spread(self, name: str) -> Spread | None:
        """Of a figure over folds and seeds; None of a single run."""
        if len(self.runs) < 2:
            return None
        return across_runs({run: values[0] for run, values in self.trainings([name]).items()})


def pool(evaluations: Iterable[Evaluation]) -> list[Model]:
    """The models of some evaluations, in their order."""
    groups: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault(evaluation.model, []).append(evaluation)
    return [_pooled(name, runs) for name, runs in groups.items()]


def _pooled(name: str, runs: Sequence[Evaluation]) -> Model:
    patient = {key: row["patient"] for run in runs for key, row in zip(run.keys, run.rows)}
    keys = sorted(patient)
    place = {key: number for number, key in enumerate(keys)}
    shared = [figure for figure in runs[0].figures if all(figure in run.figures for run in runs)]
    total, count = np.zeros((2, len(keys), len(shared)))
    for run in runs:
        rows = np.array([place[key] for key in run.keys])
        values = np.stack([run.figures[figure] for figure in shared], axis=1) if shared else np.zeros((len(rows), 0))
        total[rows] += np.nan_to_num(values)
        count[rows] += np.isfinite(values)
    with np.errstate(invalid="ignore"):
        means = total / count
    return Model(
        name,
        tuple(runs),
        keys,
        np.array([patient[key] for key in keys]),
        {f: means[:, i] for i, f in enumerate(shared)},
    )


@dataclass(frozen=True)
class Compared:
    """What may be compared with what.

    Attributes:
        models: those of the same cases, to which tests and marks are confined; none where no two are.
        figures: that may be tested: all of them have it, by one definition, and a direction of it is better.
        comparison: of those models by those figures, in their order; None where there is nothing to compare.
        different: figures that are defined differently in two models, with both definitions in a sentence.
        warnings: why something is not compared, or how far it is to be trusted; a sentence each.
    """

    models: list[Model]
    figures: list[str]
    comparison: Comparison | None
    different: dict[str, str]
    warnings: list[str]

    def means(self, name: str) -> dict[str, float]:
        """Model -> mean of a figure over the cases where all compared models have a value, by which they are ranked."""
        values = np.stack([model.figures[name] for model in self.models])
        shared = np.isfinite(values).all(axis=0)
        means = values[:, shared].mean(axis=1) if shared.any() else np.full(len(values), math.nan)
        return {model.name: float(mean) for model, mean in zip(self.models, means)}

    def best(self, name: str) -> int | None:
        """The model with the best of :meth:`means`; None where there is no case that all have a value of."""
        means = np.array(list(self.means(name).values()))
        if not np.isfinite(means).any():
            return None
        return int(means.argmin() if figure(name).better == LOWER else means.argmax())


def compare(models: Sequence[Model], among: Sequence[str]) -> Compared:
    """Test ``models`` by the figures ``among`` as far as they were asked the same."""
    same, different, warnings = asked_alike(models)
    if len(same) < 2:
        return Compared([], [], None, different, warnings)
    figures = [
        name
        for name in among
        if figure(name).better != NEITHER
        and name not in different
        and all(name in model.figures and np.isfinite(model.figures[name]).any() for model in same)
    ]
    if not figures:
        return Compared(same, [], None, different, warnings)
    comparison = compare_models(
        {model.name: np.stack([model.figures[name] for name in figures], axis=1) for model in same},
        same[0].patients,
        {model.name: model.keys for model in same},
        {model.name: model.trainings(figures) for model in same},
        _RESAMPLES,
        same[0].level,
    )
    return Compared(same, figures, comparison, different, [*warnings, *comparison.warnings])
