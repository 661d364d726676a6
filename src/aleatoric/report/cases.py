"""The case browser: every case of every evaluation in one table, and some of them in pictures, the models beside each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..visualize.drawing import rater_color, window_around
from . import tiles
from .collect import Evaluation
from .tiles import Tile, Window

__all__ = ["Browser", "Card", "CaseTable", "Strip", "View", "browse", "case_table", "choose"]

#: What pictures are chosen by and, of what there is, what the table shows at first.
FIRST_FIGURES = ("ged", "ewd", "dice_max", "dice_mean_prediction", "diversity", "ece", "area_crps")
_COLUMNS = 8  # of figures that are shown at first
_LONGEST = 256  # pixels of an image's side in the page; outlines are lines and stay sharp
_WHOLE = 112
_SHOWN = 16  # samples with a tile of their own
_GROUP = 3  # cases that are shown as best, median and worst


class CaseTable(NamedTuple):
    """Figures of all n cases, a value for every model that has one."""

    models: list[str]
    columns: dict[str, list[str]]  # what names the cases: column -> text (n,)
    figures: dict[str, np.ndarray]  # figure -> (models, n), NaN where undefined or not evaluated
    places: list[np.ndarray]  # of each evaluation's cases the row in this table


class View(NamedTuple):
    """A part of an image that tiles are drawn on."""

    name: str  # its address in the page
    window: Window
    size: tuple[int, int]  # width and height of the whole image
    crop: str  # data URI of the window
    whole: str  # data URI of the whole image, small; "" where the window is all of it


class Strip(NamedTuple):
    """A line of tiles: the raters, or a model."""

    title: str
    figures: list[tuple[str, str]]
    tiles: list[Tile]
    words: str  # what cannot be seen, or why there is no tile
    view: View | None = None  # None: no tiles
    defines: bool = False  # whether the view's image stands in the first tile


class Card(NamedTuple):
    """One case in pictures."""

    row: int  # of the table
    name: str
    about: str
    group: str  # "best 1", "" for one that is neither best, median nor worst
    strips: list[Strip]

    @property
    def view(self) -> View | None:
        """Of the first strip."""
        return self.strips[0].view


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
    files = [_Pictures(one, place) if one.npz else None for one, place in zip(evaluations, table.places)]
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
        cards.append(_card(table, evaluations, files, row, group, rank, order))
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


class _Pictures:
    """The cases of one cases.npz by row of the table."""

    _NEEDED = ("position", "image", "labels", "rater_valid", "samples")

    def __init__(self, evaluation: Evaluation, place: np.ndarray) -> None:
        self.path = evaluation.npz
        position = self._read(("position",))["position"]
        if position.ndim != 1 or not np.issubdtype(position.dtype, np.integer) or (position >= len(place)).any():
            raise InputError(
                f"{self.path} names cases that {evaluation.folder / 'per_case.csv'} does not have; evaluate again."
            )
        self.at = {int(place[at]): number for number, at in enumerate(position.tolist())}  # row -> number in the file
        self.raters = 0
        self.parts: dict[str, np.ndarray] = {}

    def _read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        try:
            with np.load(self.path, allow_pickle=False) as file:  # type: ignore[arg-type]
                return {name: file[name] for name in names}
        except Exception as error:  # a damaged zip raises nearly anything
            raise InputError(
                f"{self.path} cannot be read ({type(error).__name__}: {error}), expected the arrays "
                f"{', '.join(self._NEEDED)}; evaluate again."
            ) from error

    def keep(self, rows: Mapping[int, Any]) -> None:
        """Read these rows and forget that there are others: all pictures of many evaluations would be gigabytes."""
        self.at = {row: number for row, number in self.at.items() if row in rows}
        numbers = np.array(list(self.at.values()), int)
        self.parts = {name: part[numbers] for name, part in self._read(self._NEEDED[1:]).items()}
        image, labels, valid, samples = (self.parts[name] for name in self._NEEDED[1:])
        if not (
            image.ndim == 3
            and labels.ndim == samples.ndim == 4
            and labels.shape[2:] == samples.shape[2:] == image.shape[1:]
            and valid.shape == labels.shape[:2]
        ):
            shapes = ", ".join(f"{name} {part.shape}" for name, part in self.parts.items())
            raise InputError(
                f"{self.path} has {shapes}; expected (M, H, W), (M, R, H, W), (M, R), (M, N, H, W): evaluate again."
            )
        self.raters = labels.shape[1]
        self.at = {row: number for number, row in enumerate(self.at)}

    def case(self, row: int) -> tuple[np.ndarray, ...] | None:
        """image (H, W), labels (R, H, W), rater_valid (R,), samples (N, H, W); None for a case that is not there."""
        number = self.at.get(row)
        return None if number is None else tuple(self.parts[name][number] for name in self._NEEDED[1:])


def _card(
    table: CaseTable,
    evaluations: Sequence[Evaluation],
    files: Sequence[_Pictures | None],
    row: int,
    group: str,
    rank: str,
    order: str,
) -> Card:
    """One case: the raters' strip, and one for every model that evaluated it."""
    found = [(number, file.case(row)) for number, file in enumerate(files) if file is not None]
    parts = {number: case for number, case in found if case is not None}
    strips: list[Strip] = []
    # Of a volume each model shows the slice where it and the raters draw most, so there may be several images.
    planes: list[list[int]] = []
    for number, (image, *_) in parts.items():
        same = next((plane for plane in planes if np.array_equal(parts[plane[0]][0], image)), None)
        planes.append([number]) if same is None else same.append(number)
    for place, plane in enumerate(planes):
        strips += _strips({number: parts[number] for number in plane}, evaluations, f"image-{row}-{place}", place > 0)
    evaluated = [number for number in range(len(evaluations)) if _scores(table, number, row)]
    strips += [
        Strip(evaluations[number].label, [], [], "no picture of this case was kept")
        for number in evaluated
        if number not in parts
    ]
    by_label = {evaluations[number].label: _scores(table, number, row) for number in evaluated}
    shown = [order, *(name for name in FIRST_FIGURES if name in table.figures and name != order)][:4]
    strips = [
        strip._replace(figures=[(name, _text(scores.get(name, math.nan))) for name in shown])
        if (scores := by_label.get(strip.title))
        else strip
        for strip in strips
    ]
    about = [f"{name} {column[row]}" for name, column in table.columns.items() if name != "case" and column[row]]
    return Card(row, table.columns["case"][row], ", ".join([*about, rank]), group, strips)


def _strips(
    parts: Mapping[int, tuple[np.ndarray, ...]], evaluations: Sequence[Evaluation], name: str, another: bool
) -> list[Strip]:
    """The raters and the models on one image; ``parts``: image, labels, rater_valid and samples of each model."""
    image, labels, valid, _ = next(iter(parts.values()))
    drawn = np.concatenate([labels[valid] > 0, *(samples > 0 for *_, samples in parts.values())])
    top, bottom, left, right = window_around(drawn, image.shape, least=48)
    window, cut = Window(left, top, right - left, bottom - top), np.s_[..., top:bottom, left:right]
    height, width = image.shape
    view = View(
        name,
        window,
        (width, height),
        tiles.grey_png(image[cut], _LONGEST),
        "" if (window.width, window.height) == (width, height) else tiles.grey_png(image, _WHOLE),
    )
    labels = np.where(valid[:, None, None], labels, 0)[cut]
    samples = {number: part[-1][cut] for number, part in parts.items()}
    classes = int(max([1, labels.max(initial=1), *(part.max(initial=1) for part in samples.values())]))
    raters = [
        tiles.raters_tile(labels, valid, window, classes),
        *(tiles.map_tile(labels[valid], kind, "raters") for kind in tiles.MAPS),
        *(
            tiles.mask_tile(mask, window, f"rater {rater + 1}", rater_color(rater))
            if there
            else Tile(f"rater {rater + 1}", f"rater {rater + 1}: missing.", [], words=("missing",))
            for rater, (mask, there) in enumerate(zip(labels, valid))
        ),
    ]
    slice_of = f" on the slice that {evaluations[next(iter(parts))].label} shows" if another else ""
    strips = [Strip(f"Raters{slice_of}", [], raters, "", view, defines=True)]
    for number, masks in samples.items():
        shown = [
            tiles.samples_tile(masks, window),
            *(tiles.map_tile(masks, kind, "samples") for kind in tiles.MAPS),
            *(
                tiles.mask_tile(mask, window, f"sample {place}", tiles.SAMPLE_COLOR)
                for place, mask in enumerate(masks[:_SHOWN], 1)
            ),
        ]
        words = f"the first {_SHOWN} of {len(masks)} samples" if len(masks) > _SHOWN else ""
        strips.append(Strip(evaluations[number].label, [], shown, words, view))
    return strips


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
