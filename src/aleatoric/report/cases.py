"""The case browser: every case of every evaluation in one table, and some of them in pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from .cards import Card, KeptCases, Strip, card_strips
from .collect import Evaluation

__all__ = ["FIRST_FIGURES", "Browser", "CaseTable", "browse", "case_table", "choose"]

#: Figures that are shown first, of those that there are.
FIRST_FIGURES = ("ged", "ewd", "dice_max", "dice_mean_prediction", "diversity", "ece", "area_crps")
_COLUMNS = 8  # of figures that the table shows at first
_GROUP = 3  # cases that are shown as best, median and worst


class CaseTable(NamedTuple):
    """Figures of all n cases, a value for every model that has one."""

    models: list[str]
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
    names = [tuple(str(one.record["dataset"].get(key)) for key in ("name", "sha256")) for one in evaluations]
    several = len(set(names)) > 1
    rows: dict[tuple[Any, ...], int] = {}
    texts: dict[str, dict[int, str]] = {"case": {}, "patient": {}, "slice": {}}
    if several:
        texts["data set"] = {}
    places = []
    for one, name in zip(evaluations, names):
        place = np.array([rows.setdefault((name, *key), len(rows)) for key in one.keys])
        for at, row in zip(place.tolist(), one.rows):
            for column, text in texts.items():
                text.setdefault(at, name[0] if column == "data set" else row.get(column) or "")
        places.append(place)
    figures = {
        figure: np.full((len(evaluations), len(rows)), math.nan)
        for figure in dict.fromkeys(name for one in evaluations for name in one.figures)
    }
    for number, (one, place) in enumerate(zip(evaluations, places)):
        for figure, values in one.figures.items():
            figures[figure][number, place] = values
    if not figures:
        raise InputError(
            f"{evaluations[0].folder / 'per_case.csv'} has no figure of a case, expected a column such as ged: "
            "evaluate again."
        )
    columns = {name: [text[row] for row in range(len(rows))] for name, text in texts.items()}
    return CaseTable(
        [one.label for one in evaluations],
        {name: column for name, column in columns.items() if name in ("case", "patient") or any(column)},
        figures,
        places,
    )


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
        InputError: a cases.npz that is damaged or does not belong to its table.
    """
    table = case_table(evaluations)
    order = "ged" if "ged" in table.figures else next(iter(table.figures))
    files = [KeptCases(one, place) if one.npz else None for one, place in zip(evaluations, table.places)]
    shown_by = np.zeros(len(table.columns["case"]), int)
    for file in filter(None, files):
        shown_by[list(file.at)] += 1
    values = _mean(table.figures[order])
    chosen = choose(values, shown_by, count) if count else {}
    for file in filter(None, files):
        file.keep(chosen)
    ranks = {row: rank for rank, row in enumerate(np.argsort(values, kind="stable").tolist(), 1)}
    known = int(np.isfinite(values).sum())
    cards = []
    for row, group in chosen.items():
        rank = f"{order} rank {ranks[row]:,} of {known:,}" if np.isfinite(values[row]) else f"{order} undefined"
        cards.append(_card(table, files, row, group, rank, order))
        progress(1)
    warnings = [
        f"{one.label}: no cases.npz in {one.folder.name}, so there are no pictures of it."
        for one, file in zip(evaluations, files)
        if file is None
    ]
    wanted = [name for name in FIRST_FIGURES if name in table.figures] or list(table.figures)
    first = wanted[: max(1, _COLUMNS // len(evaluations))]
    classes = max((len(one.record["dataset"].get("classes") or ()) - 1 for one in evaluations), default=1)
    raters = max((file.raters for file in files if file is not None), default=0)
    return Browser(table, order, first, cards, raters, max(classes, 1), warnings)


def _card(
    table: CaseTable,
    files: Sequence[KeptCases | None],
    row: int,
    group: str,
    rank: str,
    order: str,
) -> Card:
    """One case: the raters' strip, and one for every model that evaluated it."""
    strips = card_strips(row, files, table.models)
    drawn = {strip.model for strip in strips}
    scores = {number: found for number in range(len(table.models)) if (found := _scores(table, number, row))}
    strips += [
        Strip(table.models[number], number, words="no picture of this case was kept")
        for number in scores
        if number not in drawn
    ]
    shown = [order, *(name for name in FIRST_FIGURES if name in table.figures and name != order)][:4]
    strips = [
        strip._replace(figures=[(name, _text(scores[strip.model].get(name, math.nan))) for name in shown])
        if strip.model in scores
        else strip
        for strip in strips
    ]
    about = [f"{name} {column[row]}" for name, column in table.columns.items() if name != "case" and column[row]]
    return Card(row, table.columns["case"][row], ", ".join([*about, rank]), group, strips)


def _scores(table: CaseTable, number: int, row: int) -> dict[str, float]:
    """Figures of a case by one model; none where it did not evaluate it."""
    scores = {name: float(values[number, row]) for name, values in table.figures.items()}
    return {name: value for name, value in scores.items() if math.isfinite(value)}


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the models (models, n) that have a value -> (n,), NaN where none has."""
    there = np.isfinite(values)
    return np.where(there.any(0), np.where(there, values, 0).sum(0) / np.maximum(there.sum(0), 1), math.nan)


def _text(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "undefined"
