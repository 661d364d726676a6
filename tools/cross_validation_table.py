"""The tables of ``cross_validate.py``, from the folders of finished folds; refused where no average may mix them.

Models are compared on the same patients, with the runs (fold and seed) that all of them have: a case's value is its
mean over a model's runs. See :mod:`aleatoric.statistics` for intervals, tests and what is called noise.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aleatoric.errors import InputError
from aleatoric.files import write_atomically
from aleatoric.report.collect import read_evaluations
from aleatoric.statistics import Comparison, Spread, across_runs, compare_models

FIGURES = ("ewd", "ewd_dice", "ged_unbiased", "gini_index", "effective_rank", "diversity", "dice")
# Said once above the table where all models share them; what differs is said model by model.
_HEAD = (
    *("max_epochs", "warmup_epochs", "learning_rate", "batch_size", "val_interval", "early_stopping_patience"),
    *("filters", "num_convs", "norm", "latent_dim", "num_samples", "overlay"),
)
_RESULT = ("split_hash", "section", "dataset")


@dataclass(frozen=True)
class Run:
    """One finished fold."""

    folder: Path
    record: dict[str, Any]  # fold.json: model, fold, seed, settings, command, seconds
    result: dict[str, Any]  # metrics.json
    best_epoch: int | None  # of the lowest validation loss, whose weights were evaluated
    epochs: int

    @property
    def model(self) -> str:
        """As named on the command line."""
        return str(self.record["model"])


def collect(out: Path) -> list[Run]:
    """The finished folds below ``out``. Raises InputError where they may not be averaged."""
    runs = []
    for path in sorted(out.glob("*/fold*_seed*/fold.json")):
        metrics = path.parent / "eval" / "metrics.json"
        if metrics.is_file():
            record, result = (json.loads(file.read_text(encoding="utf-8")) for file in (path, metrics))
            runs.append(Run(path.parent, record, result, *_course(path.parent / "eval" / "training.csv")))
    first: dict[str, Run] = {}
    for run in runs:
        _refuse_other(runs[0], run, *({key: one.result[key] for key in _RESULT} for one in (runs[0], run)))
        twin = first.setdefault(run.model, run)
        _refuse_other(twin, run, twin.record["settings"], run.record["settings"])
    return runs


def _course(path: Path) -> tuple[int | None, int]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    losses = [(float(row["val_loss"]), int(float(row["epoch"]))) for row in rows if row.get("val_loss")]
    best = min((pair for pair in losses if not math.isnan(pair[0])), default=(0.0, None))[1]
    return best, int(float(rows[-1]["epoch"]))


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Where both say something and not the same: "key value and value"."""
    return [f"{key} {first[key]} and {second[key]}" for key in first if key in second and first[key] != second[key]]


def _refuse_other(first: Run, run: Run, one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
    wrong = differences(one, two)
    if wrong:
        raise InputError(
            f"{first.folder} and {run.folder} differ in {'; '.join(wrong)}, and no average may mix them: move one of "
            f"them away, or give another --out."
        )


def csv_table(runs: Sequence[Run]) -> str:
    """A row per model, fold and seed."""
    metrics = list(dict.fromkeys(name for run in runs for name in run.result["metrics"]))
    text = io.StringIO()
    head = ["model", "fold", "seed", *metrics, "best_epoch", "epochs", "seconds", "cases", "section", "split_hash"]
    writer = csv.DictWriter(text, head, lineterminator="\n")
    writer.writeheader()
    for run in runs:
        writer.writerow(
            {
                **{key: run.record[key] for key in ("model", "fold", "seed")},
                **{name: "" if value is None else f"{value:.6g}" for name, value in run.result["metrics"].items()},
                **{key: run.result[key] for key in ("cases", "section", "split_hash")},
                "best_epoch": run.best_epoch,
                "epochs": run.epochs,
                "seconds": f"{run.record['seconds']:.1f}",
            }
        )
    return text.getvalue()


def summary(runs: Sequence[Run]) -> str:
    """Markdown: the settings, then a row per model, mean and standard deviation over its folds and seeds."""
    if not runs:
        return "no fold is finished yet\n"
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.model, []).append(run)
    settings = {name: group[0].record["settings"] for name, group in groups.items()}
    first, result = next(iter(settings.values())), runs[0].result
    shared = {key for key in first if all(key in one and one[key] == first[key] for one in settings.values())}
    lines = [f"- `{command}`" for command in dict.fromkeys(run.record["command"] for run in runs)]
    data = f"{result['dataset']['name']}, {result['cases']} cases of the section {result['section']}"
    lines.append(f"- {data}, split {result['split_hash']}")
    lines.append("- all models: " + _listed({key: first[key] for key in _HEAD if key in shared}))
    for name, group in groups.items():
        own = {key: value for key, value in settings[name].items() if key not in shared}
        best = [run.best_epoch for run in group if run.best_epoch is not None]
        minutes = np.mean([run.record["seconds"] for run in group]) / 60
        lines.append(
            f"- {name}: epochs run {_span([run.epochs for run in group])}, best {_span(best)}, {minutes:.1f} min a "
            f"training" + (f"; {_listed(own)}" if own else "")
        )
    spreads = {name: spread_of(group) for name, group in groups.items()}
    table = [["model", "runs", *FIGURES]]
    for name, spread in spreads.items():
        pairs = zip(spread.mean.tolist(), spread.deviation.tolist())
        table.append([name, str(spread.runs), *(mean_and_deviation(mean, deviation) for mean, deviation in pairs)])
    lines += ["", *_markdown(table)]
    if any(not np.isnan(spread.between_seeds).all() for spread in spreads.values()):
        lines += ["", "Standard deviation between folds (of their means over seeds) and between seeds of one fold:", ""]
        rows = [["model", "between", *FIGURES]]
        for name, spread in spreads.items():
            for between, values in (("folds", spread.between_folds), ("seeds", spread.between_seeds)):
                rows.append(
                    [name, between, *("-" if math.isnan(value) else f"{value:.3f}" for value in values.tolist())]
                )
        lines += _markdown(rows)
    return "\n".join(lines) + "\n"


def spread_of(group: Sequence[Run]) -> Spread:
    """Of :data:`FIGURES` over a model's runs; NaN where a run lacks one."""
    values: dict[tuple[object, object], ArrayLike] = {}
    for run in group:
        values[run.record["fold"], run.record["seed"]] = _figures(run)
    return across_runs(values)


def _figures(run: Run) -> np.ndarray:
    """:data:`FIGURES` of a run, NaN where it lacks one."""
    found = [run.result["metrics"].get(name) for name in FIGURES]
    return np.array([math.nan if value is None else value for value in found])


def mean_and_deviation(mean: float, deviation: float) -> str:
    """One run has no deviation, a figure that a run lacks is "-"."""
    if math.isnan(mean):
        return "-"
    return f"{mean:.3f}" + ("" if math.isnan(deviation) else f" ± {deviation:.3f}")


def _markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, aligned; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*table)]
    rows = [table[0], ["-" * width for width in widths], *table[1:]]
    return ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]


@dataclass(frozen=True)
class Tests:
    """Every model against every other, each figure for itself."""

    figures: tuple[str, ...]
    comparison: Comparison  # matrices (models, models, figures)
    runs: int  # of each model, of which a case's value is the mean


def compare_runs(runs: Sequence[Run]) -> Tests:
    """Tests between the models of ``runs``.

    Raises:
        InputError: fewer than two models, no fold and seed that all have, other cases, no figure that all have.
    """
    groups: dict[str, dict[tuple[int, int], Run]] = {}
    for run in runs:
        groups.setdefault(run.model, {})[run.record["fold"], run.record["seed"]] = run
    if len(groups) < 2:
        raise InputError("there is one model, expected two or more to compare.")
    shared = set.intersection(*map(set, groups.values()))
    if not shared:
        raise InputError(f"{', '.join(groups)} have no fold and seed in common: train them on the same ones.")
    cases: dict[str, dict[tuple[str, ...], list[dict[str, float]]]] = {}
    patients: dict[tuple[str, ...], str] = {}
    for model, group in groups.items():
        cases[model] = {}
        for evaluation in read_evaluations(group[key].folder / "eval" for key in sorted(shared)):
            for number, (key, row) in enumerate(zip(evaluation.keys, evaluation.rows)):
                values = {name: float(column[number]) for name, column in evaluation.figures.items()}
                cases[model].setdefault(key, []).append(values)
                patients[key] = row["patient"]
    having = {
        name: sum(any(name in values for each in found.values() for values in each) for found in cases.values())
        for name in FIGURES
    }
    figures = tuple(name for name, models in having.items() if models > 1)
    if not figures:
        raise InputError(f"no two models have one of {', '.join(FIGURES)}: evaluate them with one version.")
    places = [FIGURES.index(name) for name in figures]
    means = {
        model: _mean_of_defined(
            [[[each.get(name, math.nan) for name in figures] for each in found[key]] for key in sorted(found)]
        )
        for model, found in cases.items()
    }
    comparison = compare_models(
        means,
        [patients[key] for key in sorted(next(iter(cases.values())))],
        {model: sorted(found) for model, found in cases.items()},
        {model: {key: _figures(group[key])[places] for key in shared} for model, group in groups.items()},
    )
    return Tests(figures, comparison, len(shared))


def _mean_of_defined(values: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """(cases, figures) mean over the runs (cases, runs, figures) that have a value; NaN where none has."""
    runs = np.array(values)
    number = np.count_nonzero(~np.isnan(runs), axis=1)
    return np.where(number > 0, np.nan_to_num(runs).sum(1) / np.maximum(number, 1), math.nan)


def tests_text(tests: Tests) -> str:
    """Markdown: a matrix per figure, and which differences are inside the noise."""
    models, comparison = tests.comparison.models, tests.comparison
    over = f"{tests.runs} runs" if tests.runs > 1 else "one run"
    lines = [
        "",
        f"Row minus column, a case's value the mean of {over} of each model; p of Wilcoxon's signed-rank test on the "
        f"means of {comparison.patients} patients, after Holm's correction for all pairs. `~`: inside the noise (the "
        f"interval over patients contains 0, p is above .05, the test points the other way, or other trainings differ "
        f"as much; reasons and intervals: cross_validation_tests.csv).",
        "",
        *(f"- warning: {warning}" for warning in comparison.warnings),
    ]
    for place, figure in enumerate(tests.figures):
        table = [[figure, *models]]
        for i, model in enumerate(models):
            cells = [_cell(comparison, i, j, place) for j in range(len(models))]
            table.append([model, *cells[:i], "", *cells[i + 1 :]])
        noise = [
            f"{one} and {two}"
            for i, one in enumerate(models)
            for j, two in enumerate(models)
            if i < j and comparison.inside[i, j, place] and not np.isnan(comparison.difference[i, j, place])
        ]
        lines += ["", *_markdown(table)]
        if noise:
            lines += ["", f"- {figure}: inside the noise: {'; '.join(noise)}"]
    return "\n".join(lines) + "\n"


def _cell(comparison: Comparison, i: int, j: int, place: int) -> str:
    difference = comparison.difference[i, j, place]
    if np.isnan(difference):
        return "-"
    mark = "~ " if comparison.inside[i, j, place] else ""
    return f"{mark}{difference:+.3f} (p {comparison.adjusted[i, j, place]:.2g})"


def tests_table(tests: Tests) -> str:
    """CSV: a row per pair of models and figure, with the interval, both corrections and the verdict in words."""
    comparison, text = tests.comparison, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    matrices = ("difference", "low", "high", "p", "adjusted", "adjusted_figures", "trainings")
    head = [*matrices[:4], "p_holm_pairs", "p_holm_figures", "half_interval_over_trainings"]
    writer.writerow(["figure", "model", "other", *head, "inside_noise", "verdict"])
    for place, figure in enumerate(tests.figures):
        for i, one in enumerate(comparison.models):
            for j, two in list(enumerate(comparison.models))[i + 1 :]:
                numbers = [float(getattr(comparison, name)[i, j, place]) for name in matrices]
                verdict = comparison.verdict(one, two, place)
                values = ["" if math.isnan(number) else f"{number:.6g}" for number in numbers]
                writer.writerow([figure, one, two, *values, verdict.inside, verdict.sentence])
    return text.getvalue()


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items())


def _span(values: Sequence[int]) -> str:
    if not values:
        return "unknown"
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def write_tables(out: Path) -> str:
    """cross_validation.csv and .md of all that is finished below ``out``, and of several models the tests between them
    (cross_validation_tests.csv); returns the text of the second."""
    runs = collect(out)
    text = summary(runs)
    write_atomically(out / "cross_validation.csv", csv_table(runs))
    path = out / "cross_validation_tests.csv"
    path.unlink(missing_ok=True)  # of the runs that were there before
    if len({run.model for run in runs}) > 1:
        try:
            tests = compare_runs(runs)
        except InputError as error:  # the averages stand nevertheless
            text += f"\n- no tests between models: {error}\n"
        else:
            text += tests_text(tests)
            write_atomically(path, tests_table(tests))
    write_atomically(out / "cross_validation.md", text)
    return text
