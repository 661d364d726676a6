"""The case browser: every case of every evaluation in one table, and some of them in pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from .cards import Card, KeptCases, Strip, card_strips
from .collect import Evaluation
from .figures import HEADLINES, figure, in_order, value_text
from .models import Model, pool

__all__ = ["Browser", "CaseTable", "browse", "case_table", "choose"]

_COLUMNS = 8  # of figures that the table shows at first
_ON_CARD = 4
_GROUP = 3  # cases that are shown as best, median and worst


class CaseTable(NamedTuple):
    """Figures of all n cases by every model, the mean over its runs that saw the case."""

    models: list[Model]
    columns: dict[str, list[str]]  # what names the cases: column -> text (n,)
    figures: dict[str, np.ndarray]  # figure -> (models, n), NaN where undefined or not evaluated
    places: list[np.ndarray]  # of each evaluation's cases the row in this table


class Browser(NamedTuple):
    """All that the page shows of single cases."""

    table: CaseTable
    order: str  # figure that best, median and worst are by
    first: list[str]  # figures that the table shows at first
    cards: list[Card]
    raters: int
    classes: int
    warnings: list[str]


def case_table(evaluations: Sequence[Evaluation]) -> CaseTable:
    """The cases of all evaluations, those of the first in its order, then what the others have besides.

    The same case of the same data set is one row.

    Raises:
        InputError: no evaluation has a figure per case.
    """
    sets = [tuple(str(one.record["dataset"].get(key)) for key in ("name", "sha256")) for one in evaluations]
    rows: dict[tuple[Any, ...], int] = {}
    texts: dict[str, dict[int, str]] = {"case": {}, "patient": {}, "slice": {}}
    if len(set(sets)) > 1:
        texts["data set"] = {}
    places = []
    for one, name in zip(evaluations, sets):
        place = np.array([rows.setdefault((name, *key), len(rows)) for key in one.keys])
        for at, row in zip(place.tolist(), one.rows):
            for column, text in texts.items():
                text.setdefault(at, name[0] if column == "data set" else row.get(column) or "")
        places.append(place)
    models = pool(evaluations)
    known = in_order(name for model in models for name in model.figures)
    if not known:
        raise InputError(
            f"{evaluations[0].folder / 'per_case.csv'} has no figure of a case, expected a column such as ged: "
            "evaluate again."
        )
    figures = {one.key: np.full((len(models), len(rows)), math.nan) for one in known}
    place_of = {one.folder: place for one, place in zip(evaluations, places)}
    for number, model in enumerate(models):
        row_of = {key: row for run in model.runs for key, row in zip(run.keys, place_of[run.folder].tolist())}
        place = np.array([row_of[key] for key in model.keys])
        for key, values in model.figures.items():
            figures[key][number, place] = values
    columns = {name: [text[row] for row in range(len(rows))] for name, text in texts.items()}
    columns = {name: column for name, column in columns.items() if name in ("case", "patient") or any(column)}
    return CaseTable(models, columns, figures, places)


def choose(values: np.ndarray, shown_by: np.ndarray, count: int) -> dict[int, str]:
    """Cases to show, in the order best, median, worst, then evenly spread by rank.

    Args:
        values: (n,), small is good; NaN is not ranked.
        shown_by: (n,) how many models have pictures of the case. Where enough cases have those of every model, the
            others are left out.
        count: how many.

    Returns:
        row -> "best 1" ... "worst 3", or "".
    """
    there = np.flatnonzero(shown_by > 0)
    everywhere = np.flatnonzero(shown_by == shown_by.max(initial=1))
    if len(everywhere) >= min(count, 3 * _GROUP):
        there = everywhere
    ranked = there[np.argsort(values[there], kind="stable")]  # NaN last
    finite = ranked[np.isfinite(values[ranked])].tolist()
    each = min(_GROUP, max(1, min(len(finite), count) // 3))
    chosen: dict[int, str] = {}
    middle = max(0, (len(finite) - each) // 2)
    for group, some in (
        ("best", finite[:each]),
        ("worst", finite[::-1][:each]),
        ("median", finite[middle : middle + each]),
    ):
        some = [row for row in some if row not in chosen][: max(0, count - len(chosen))]
        chosen |= {row: f"{group} {number}" for number, row in enumerate(some, 1)}
    order = {"best": 0, "median": 1, "worst": 2}
    chosen = dict(sorted(chosen.items(), key=lambda item: (order[item[1].split()[0]], item[1])))
    rest = [row for row in ranked.tolist() if row not in chosen]
    more = min(count - len(chosen), len(rest))
    return chosen | {rest[at]: "" for at in np.linspace(0, len(rest) - 1, more).round().astype(int).tolist()}


def browse(evaluations: Sequence[Evaluation], count: int, progress: Callable[[int], Any] = lambda _: None) -> Browser:
    """Everything that is shown of single cases.

    Args:
        evaluations: at least one.
        count: cases with pictures.
        progress: is told how many more cases are drawn.

    Raises:
        InputError: a cases.npz that is damaged or does not belong to its table; no figure of a case.
    """
    table = case_table(evaluations)
    order = "ged" if "ged" in table.figures else next(iter(table.figures))
    values = _mean(table.figures[order])
    files = {
        number: KeptCases(one, place)
        for number, (one, place) in enumerate(zip(evaluations, table.places))
        if one.npz is not None
    }
    runs = [[number for number, one in enumerate(evaluations) if one.model == model.name] for model in table.models]
    shown_by = np.zeros(len(values), int)
    for numbers in runs:
        shown_by[list({row for number in numbers if number in files for row in files[number].at})] += 1
    chosen = choose(values, shown_by, count) if count else {}
    for file in files.values():
        file.keep(chosen)
    ranks = {row: rank for rank, row in enumerate(np.argsort(values, kind="stable").tolist(), 1)}
    known = f"{int(np.isfinite(values).sum()):,}"
    headlines = [name for name in HEADLINES if name in table.figures] or list(table.figures)
    told = list(dict.fromkeys([order, *headlines]))[:_ON_CARD]
    cards = []
    for row, place in chosen.items():
        strips = _strips_of(row, table, evaluations, files, runs, told)
        name = figure(order).title
        rank = f"{name} rank {ranks[row]:,} of {known}" if np.isfinite(values[row]) else f"{name} undefined"
        about = [f"{name} {column[row]}" for name, column in table.columns.items() if name != "case" and column[row]]
        cards.append(Card(row, table.columns["case"][row], ", ".join([*about, rank]), place, strips))
        progress(1)
    warnings = [
        f"{one.label}: it has no cases.npz, so there are no pictures of its cases."
        for number, one in enumerate(evaluations)
        if number not in files
    ]
    return Browser(
        table,
        order,
        headlines[: max(1, _COLUMNS // len(table.models))],
        cards,
        raters=max((file.raters for file in files.values()), default=0),
        classes=max([1, *(len(one.record["dataset"].get("classes") or ()) - 1 for one in evaluations)]),
        warnings=warnings if count else [],
    )


def _strips_of(
    row: int,
    table: CaseTable,
    evaluations: Sequence[Evaluation],
    files: Mapping[int, KeptCases],
    runs: Sequence[Sequence[int]],
    told: Sequence[str],
) -> list[Strip]:
    """A case's strips with their figures: of each model the first run that kept pictures, or words that none did."""
    pictures = {}
    without = []
    for model, numbers in enumerate(runs):
        found = ((number, files[number].case(row)) for number in numbers if number in files)
        shown = next(((number, case) for number, case in found if case is not None), None)
        if shown is not None:
            pictures[shown[0]] = shown[1]
        elif any(np.isfinite(values[model, row]) for values in table.figures.values()):
            figures = [(figure(name).title, value_text(table.figures[name][model, row])) for name in told]
            without.append(Strip(table.models[model].name, None, figures, words="no picture of this case was kept"))
    strips = []
    for strip in card_strips(row, pictures, [one.label for one in evaluations]):
        if strip.run is not None:
            one = evaluations[strip.run]
            at = int(np.flatnonzero(table.places[strip.run] == row)[0])
            values = [(name, one.figures[name][at]) for name in told if name in one.figures]
            strip = strip._replace(figures=[(figure(name).title, value_text(value)) for name, value in values])
        strips.append(strip)
    return [*strips, *without]


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the models (models, n) that have a value -> (n,), NaN where none has."""
    there = np.isfinite(values)
    return np.where(there.any(0), np.where(there, values, 0).sum(0) / np.maximum(there.sum(0), 1), math.nan)
