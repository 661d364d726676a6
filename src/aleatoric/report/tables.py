"""The numbers of a report in tables: figures by model, tests, runs, and where it all came from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from .content import Table
from .figures import FAMILIES, HEADLINES, LOWER, Figure, figure, in_order, value_text, with_interval
from .models import Compared, Model
from .units import area_unit, has_unit, length_unit

__all__ = [
    "family_tables",
    "matrix_table",
    "run_table",
    "spread_table",
    "summary_table",
    "text_table",
]


_TIE = 1e-6
# By whether trainings are missing.
_TRAININGS = (
    "Interval and test tell of other patients; how far other trainings may differ is judged by the spread over folds "
    "and seeds.",
    "Interval and test tell of other patients. How far other trainings of the same models may differ is not known of "
    "all pairs: it takes several seeds, or folds that both have.",
)
# A row of these fits a page.
_OF_RUNS = ("ged", "ewd", "dice_nonempty_mean_prediction", "effective_rank", "gini_index")


def text_table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str] = (), numbers: bool = True
) -> Table:
    """A table without marks."""
    cells = [list(row) for row in rows]
    return Table(caption, list(head), cells, [[""] * len(row) for row in cells], list(notes), numbers)


def summary_table(models: Sequence[Model], compared: Compared) -> Table:
    """The main figures of each model, with intervals, the best marked, what each is below."""
    there = {name for model in models for name in model.metrics}
    figures = [figure(name) for name in HEADLINES if name in there]
    if not any(one.better for one in figures):  # no figure of ours: show what there is
        figures = in_order(there)
    counts = [
        ["cases", *(f"{len(model.keys):,}" for model in models)],
        ["patients", *(f"{len(set(model.patients)):,}" for model in models)],
        ["samples per image", *(str(model.runs[0].record["num_samples"]) for model in models)],
        ["trainings", *(str(len(model.runs)) for model in models)],
    ]
    table = _figure_table("Main figures: mean over the cases", figures, models, compared)
    conventions = dict.fromkeys(str(model.runs[0].record.get("conventions") or "") for model in models)
    return table._replace(
        rows=table.rows + counts,
        marks=table.marks + [[""] * len(row) for row in counts],
        notes=[
            *_reading(models, compared),
            *(f"Conventions, here and below: {text}." for text in conventions if text),
            *table.notes,
        ],
    )


def family_tables(models: Sequence[Model], compared: Compared) -> list[Table]:
    """Every figure of every model, a table per family."""
    every = in_order(name for model in models for name in model.metrics)
    return [
        _figure_table(family, figures, models, compared)
        for family in FAMILIES
        if (figures := [one for one in every if one.family == family])
    ]


def _figure_table(caption: str, figures: Sequence[Figure], models: Sequence[Model], compared: Compared) -> Table:
    rows, marks = [], []
    for one in figures:
        cells = []
        for model in models:
            value = model.metrics.get(one.key)
            interval = model.intervals.get(one.key, (math.nan, math.nan))
            cells.append("" if value is None else with_interval(value, *interval))
        rows.append([one._replace(title=_with_unit(one, models)).head, *cells])
        marks.append(["", *_marks(one, models, compared)])
    notes = []
    for one in figures:
        if one.key in compared.different:
            notes.append(f"{one.title} ({one.key}) {compared.different[one.key]}")
        elif text := next(filter(None, (model.definition(one.key) for model in models)), ""):
            notes.append(f"{one.title} ({one.key}): {text}.")
    return Table(caption, ["figure", *(model.name for model in models)], rows, marks, notes)


def _with_unit(one: Figure, models: Sequence[Model]) -> str:
    """The title, with what the numbers are in where all models have one unit."""
    if not has_unit(one.key):
        return one.title
    unit = length_unit if one.key.startswith("ewd") else area_unit
    units = {unit(model.runs[0].record) for model in models}
    return f"{one.title}, {units.pop()}" if len(units) == 1 else one.title


def _reading(models: Sequence[Model], compared: Compared) -> list[str]:
    """How to read the tables of figures, this one and those below."""
    notes = []
    levels = sorted({model.level for model in models if np.isfinite(list(model.intervals.values())).any()})
    if levels:
        said = " or ".join(f"{100 * level:g} %" for level in levels)
        methods = dict.fromkeys((model.runs[0].record.get("bootstrap") or {}).get("method") for model in models)
        how = next(iter(methods)) if len(methods) == 1 else None
        notes.append(f"In brackets: {said} interval; {how or 'bootstrap over patients with all their cases'}.")
        errors = (models[0].runs[0].record.get("bootstrap") or {}).get("of_calibration_errors")
        if errors:
            notes.append(f"Intervals of calibration errors of the data set as a whole are {errors}.")
    notes.append("↓ lower is better, ↑ higher is better; no arrow: neither is better in itself.")
    if compared.figures:
        notes.append(
            "Marked: the best mean over the cases where all have a value, and what cannot be told from it (inside the "
            "noise, see Tests)."
        )
    if any(len(model.runs) > 1 for model in models):
        notes.append("Of several trainings, a figure of the whole data set is the mean of theirs, without an interval.")
    return notes


def _marks(one: Figure, models: Sequence[Model], compared: Compared) -> list[str]:
    """Per model "best", "noise" or "", by the tests; nothing where no test was made."""
    if compared.comparison is None or one.key not in compared.figures:
        return [""] * len(models)
    best = compared.best(one.key)
    if best is None:
        return [""] * len(models)
    place = compared.figures.index(one.key)
    others = np.arange(len(compared.models)) != best
    if (np.abs(compared.comparison.difference[best, others, place]) < _TIE).any():
        return [""] * len(models)  # nobody is best in a tie
    inside = compared.comparison.inside[best, :, place]
    told = {
        model.name: "best" if number == best else "noise" if inside[number] else ""
        for number, model in enumerate(compared.models)
    }
    return [told.get(model.name, "") for model in models]


def matrix_table(compared: Compared, name: str, again: bool = False) -> Table:
    """Every model against every other by one figure: the difference above the diagonal, p below it.

    ``again``: a matrix stands above it, whose notes need not be repeated.
    """
    comparison, place = compared.comparison, compared.figures.index(name)
    assert comparison is not None  # there is a figure only where there is a comparison
    one, names = figure(name), [model.name for model in compared.models]
    rows, marks = [], []
    for i, row in enumerate(names):
        cells, marked = [row], [""]
        for j in range(len(names)):
            if i == j:
                text = ""
            elif i < j:
                low, high = comparison.low[i, j, place], comparison.high[i, j, place]
                difference = comparison.difference[i, j, place]
                text = "+" * bool(difference > 0) + with_interval(difference, low, high)
            else:
                text = p_text(comparison.adjusted[i, j, place])
            cells.append(text)
            marked.append("noise" if i != j and comparison.inside[i, j, place] else "")
        rows.append(cells)
        marks.append(marked)
    pairs = len(names) * (len(names) - 1) // 2
    counted = np.unique(comparison.counted[np.triu_indices(len(names), 1)][:, place])
    patients = " to ".join(str(number) for number in (counted[[0, -1]] if len(counted) > 1 else counted))
    correction = f", after Holm's correction for {pairs} pairs of models" if pairs > 1 else ""
    better = "below 0 the row is better" if one.better == LOWER else "above 0 the row is better"
    means = f"Wilcoxon's signed-rank test on the means of {patients} patients"
    notes = [
        f"Above the diagonal: the row's mean minus the column's over the cases where both have a value, with its "
        f"{100 * comparison.level:g} % interval (the same patients resampled for both); {better}.",
        f"Below it: p of {means}, each of whom counts alike, "
        f"two-sided{correction}. Other figures have tests of their own, and are not corrected for.",
    ]
    if any("noise" in row for row in marks):
        notes.append(
            "Marked: inside the noise: the interval contains 0, p is above 0.05, the test points the other way than "
            "the difference, or other trainings of the same models differ as much."
        )
    notes.append(_TRAININGS[bool(np.isnan(comparison.trainings[..., place][np.triu_indices(len(names), 1)]).any())])
    if again:
        notes = [f"Read as above: {better}; {means}."]
    return Table(f"Tests: {one.title}", ["", *names], rows, marks, notes)


def p_text(p: float) -> str:
    """``p = 0.031``, ``p < 0.001``, on one line; nothing where no test was made."""
    if not math.isfinite(p):
        return ""
    text = "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.9995 else "p = 1"
    return text.replace(" ", "\u00a0")


def spread_table(models: Sequence[Model]) -> Table | None:
    """Mean and deviation over folds and seeds, of the models that were trained more than once; None without one."""
    several = [model for model in models if len(model.runs) > 1]
    if not several:
        return None
    there = {name for model in several for name in model.metrics}
    rows = []
    for one in (figure(name) for name in HEADLINES if name in there):
        cells = []
        for model in several:
            spread = model.spread(one.key)
            assert spread is not None  # of several runs
            mean = float(spread.mean)
            parts = (("folds", spread.between_folds), ("seeds", spread.between_seeds))
            both = min(spread.folds, spread.seeds) > 1  # otherwise one of them is the deviation itself
            said = [f"{name} {value_text(float(part), [mean])}" for name, part in parts if both and math.isfinite(part)]
            text = f"{value_text(mean)} ± {value_text(float(spread.deviation), [mean])}"
            cells.append(text + (f" ({', '.join(said)})" if said else ""))
        rows.append([one.head, *cells])
    trainings = []
    for model in several:
        spread = model.spread("")
        assert spread is not None
        trainings.append(f"{model.name}: {spread.runs} trainings, folds {spread.folds}, seeds {spread.seeds}")
    notes = [
        "Mean ± standard deviation of the trainings' means, n - 1 in the divisor; in parentheses the deviation between "
        "the folds' means, and between the seeds of one fold, where there are several.",
        "Folds share most of their training images, so their deviation is no standard error.",
        *trainings,
    ]
    return text_table("Folds and seeds", ["figure", *(model.name for model in several)], rows, notes)


def run_table(models: Sequence[Model]) -> Table | None:
    """A row per training of the models that were trained more than once; None without one."""
    runs = [run for model in models if len(model.runs) > 1 for run in model.runs]
    names = [name for name in _OF_RUNS if any(name in run.metrics for run in runs)]
    if not runs:
        return None
    rows = [
        [run.label, *(value_text(run.metrics[name]) if name in run.metrics else "" for name in names)] for run in runs
    ]
    return text_table("Every training", ["training", *(figure(name).head for name in names)], rows)
